{{- define "taskdist.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* The release's name, with the chart's name where it does not tell what it is. */}}
{{- define "taskdist.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "taskdist.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "taskdist.selectorLabels" -}}
app.kubernetes.io/name: {{ include "taskdist.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "taskdist.labels" -}}
{{ include "taskdist.selectorLabels" . }}
app.kubernetes.io/part-of: taskdist
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "taskdist.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "taskdist.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: name an existing ServiceAccount, or set serviceAccount.create" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Names of cluster-wide objects carry the namespace: two installations may share the release's name. */}}
{{- define "taskdist.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "taskdist.fullname" .) }}
{{- end }}

{{/*
Fails where a namespace of watchNamespaces cannot take a Role: half-way an upgrade would leave the operator without its
rights. Rendered without a cluster nothing is known of any namespace; every cluster has one called default.
*/}}
{{- define "taskdist.checkNamespaces" -}}
{{- if and .Values.watchNamespaces (lookup "v1" "Namespace" "" "default") }}
{{- range .Values.watchNamespaces }}
{{- if ne . $.Release.Namespace }}
{{- $found := lookup "v1" "Namespace" "" . }}
{{- if not $found }}
{{- fail (printf "watchNamespaces: namespace %s does not exist. Nothing was changed. Create it first: kubectl create namespace %s" . .) }}
{{- else if $found.metadata.deletionTimestamp }}
{{- fail (printf "watchNamespaces: namespace %s is being deleted. Nothing was changed. Leave it out, or create it again first." .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Fails where `names`, of the value `called`, are not all served: nothing would come of them. */}}
{{- define "taskdist.checkServed" -}}
{{- range .names }}
{{- if and $.watched (ne . "*") (not (has . $.watched)) }}
{{- fail (printf "%s: %s is not among watchNamespaces: add it there, or leave it out" $.called .) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the operator needs in a namespace whose Tasks it serves. */}}
{{- define "taskdist.watchRules" -}}
# Specs are the users' own: the operator reads them and writes status only.
- apiGroups: [taskdist.dev]
  resources: [tasks, taskqueues, agentpools]
  verbs: [get, list, watch]
# What waits at sources is work that is still to come in.
- apiGroups: [taskdist.dev]
  resources: [tasksources]
  verbs: [get, list, watch]
# What sinks have not told yet is not deleted, where they say so.
- apiGroups: [taskdist.dev]
  resources: [tasksinks]
  verbs: [get, list, watch]
# Tasks that were kept for as long as they or their queue say are deleted.
- apiGroups: [taskdist.dev]
  resources: [tasks]
  verbs: [delete]
- apiGroups: [taskdist.dev]
  resources: [tasks/status, taskqueues/status, agentpools/status]
  verbs: [get, patch]
# Agents. They are marked before they are deleted, so that the next leader knows of a deletion that is under way.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# The certificate authorities' public half, where agents read it. It says which installation serves the namespace, and
# is watched for another one's claim. Creation cannot be bound to a name.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [taskdist-ca]
  verbs: [get, list, watch, update, patch]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* What a look at the distribution needs. */}}
{{- define "taskdist.viewRules" -}}
- apiGroups: [taskdist.dev]
  resources: [tasks, taskqueues, agentpools]
  verbs: [get, list, watch]
{{- end }}
