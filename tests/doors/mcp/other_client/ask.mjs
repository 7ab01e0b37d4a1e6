// Carries out the steps that standard input lists, by the official TypeScript client, and writes what was answered.
// {"server": {"command": …, "args": […]} or {"url": …, "headers": {…}}, "mode": "auto" or "legacy",
//  "steps": [{"tools": true}, {"call": …, "arguments": {…}, "keep": "NAME"}, {"read": URI}]}
// An argument "$NAME" is the name of the task that the kept answer had.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { readFileSync } from "node:fs";

const wanted = JSON.parse(readFileSync(0, "utf8"));
const { server } = wanted;
const transport = server.url
  ? new StreamableHTTPClientTransport(new URL(server.url), { requestInit: { headers: server.headers } })
  : new StdioClientTransport({ ...server, env: { ...process.env, ...server.env }, stderr: "inherit" });
const client = new Client({ name: "other-client", version: "0" }, { versionNegotiation: { mode: wanted.mode } });
const kept = {};
const filled = (value) =>
  JSON.parse(JSON.stringify(value), (_, each) =>
    typeof each === "string" && each.startsWith("$") ? kept[each.slice(1)].structuredContent.task.name : each,
  );
const answers = [];
await client.connect(transport);
for (const step of wanted.steps) {
  let answer;
  if (step.tools) {
    answer = await client.listTools();
  } else if (step.read) {
    answer = await client.readResource({ uri: step.read });
  } else {
    answer = await client.callTool({ name: step.call, arguments: filled(step.arguments) });
  }
  if (step.keep) kept[step.keep] = answer;
  answers.push(answer);
}
await client.close();
process.stdout.write(JSON.stringify(answers));
