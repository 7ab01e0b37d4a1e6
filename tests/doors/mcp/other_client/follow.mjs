// Makes a long call over HTTP and follows it to its end; each answer has to have the shape that the extension's own
// package gives it. {"url": …, "headers": {…}, "arguments": {…}}
import * as shapes from "@modelcontextprotocol/ext-tasks/core/v2";
import { readFileSync } from "node:fs";

const wanted = JSON.parse(readFileSync(0, "utf8"));
const version = "2026-07-28";
const meta = {
  "io.modelcontextprotocol/protocolVersion": version,
  "io.modelcontextprotocol/clientInfo": { name: "other-client", version: "0" },
  "io.modelcontextprotocol/clientCapabilities": { extensions: { "io.modelcontextprotocol/tasks": {} } },
};
let id = 0;

async function messages(method, name, params) {
  const answer = await fetch(wanted.url, {
    method: "POST",
    headers: {
      ...wanted.headers,
      "Content-Type": "application/json",
      Accept: "application/json, text/event-stream",
      "MCP-Protocol-Version": version,
      "Mcp-Method": method,
      ...(name && { "Mcp-Name": name }),
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: ++id, method, params: { ...params, _meta: meta } }),
  });
  const text = await answer.text();
  if (answer.headers.get("content-type").startsWith("application/json")) return [JSON.parse(text)];
  const lines = text.split(/\r?\n/).filter((line) => line.startsWith("data: "));
  return lines.map((line) => JSON.parse(line.slice(6)));
}

async function result(method, name, params) {
  const last = (await messages(method, name, params)).at(-1);
  if (last.error) throw new Error(JSON.stringify(last.error));
  return last.result;
}

const made = shapes.CreateTaskResultV2Schema.parse(
  await result("tools/call", "task-queue", { name: "task-queue", arguments: wanted.arguments }),
);
const polled = shapes.GetTaskResultV2Schema.parse(await result("tasks/get", made.taskId, { taskId: made.taskId }));
const heard = await messages("subscriptions/listen", null, { notifications: { taskIds: [made.taskId] } });
const told = heard.filter((each) => each.method === "notifications/tasks");
told.forEach((each) => shapes.TaskStatusNotificationV2Schema.parse(each));
shapes.TaskSubscriptionAcknowledgedNotificationsV2Schema.parse(heard[0].params.notifications);
const done = shapes.GetTaskResultV2Schema.parse(await result("tasks/get", made.taskId, { taskId: made.taskId }));
shapes.UpdateTaskResultV2Schema.parse(
  await result("tasks/update", made.taskId, { taskId: made.taskId, inputResponses: {} }),
);
shapes.CancelTaskResultV2Schema.parse(await result("tasks/cancel", made.taskId, { taskId: made.taskId }));
process.stdout.write(JSON.stringify({ made, polled, heard, told, done }));
