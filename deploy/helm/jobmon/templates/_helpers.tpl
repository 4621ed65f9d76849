{{- define "jobmon.name" -}}
{{- if contains "jobmon" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-jobmon" (.Release.Name | trunc 43 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "jobmon.selector" -}}
app.kubernetes.io/name: jobmon
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Name and labels of an object. Takes root and component, and optionally the object's name. */}}
{{- define "jobmon.metadata" -}}
name: {{ .name | default (printf "%s-%s" (include "jobmon.name" .root) .component) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "jobmon.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}

{{- define "jobmon.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "jobmon.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "jobmon.image" -}}
{{- with .Values.image }}{{ if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{/* A number of values.yaml is a float in a template: a setting must not become 1e+06. */}}
{{- define "jobmon.text" -}}
{{- if kindIs "float64" . }}{{ printf "%.0f" . | quote }}{{ else }}{{ toString . | quote }}{{ end }}
{{- end }}

{{/* Metadata and spec of a pod. Takes root, component, command, and process (the component's values), and
     optionally account, restartPolicy, files (a config map's name), and container (YAML for the container). */}}
{{- define "jobmon.pod" -}}
{{- $values := .root.Values -}}
{{- range $name, $_ := $values.settings }}
{{- if regexMatch "(_URI|_PASSWORD|_SECRET_KEY|_SECRET|_NOTIFY_URLS)$" $name }}
{{- fail (printf "settings.%s: a secret belongs in the existingSecret of each process that needs it" $name) }}
{{- end }}
{{- end -}}
metadata:
  labels:
    {{- include "jobmon.selector" . | nindent 4 }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or $values.podAnnotations $values.files }}
  annotations:
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $values.files }}
    jobmon/files: {{ toYaml . | sha256sum }} # a change of a file replaces the pods
    {{- end }}
  {{- end }}
spec:
  automountServiceAccountToken: false
  # Otherwise Kubernetes sets variables that look like settings, such as JOBMON_PORT for the service jobmon.
  enableServiceLinks: false
  # Python is then not process 1, which ignores SIGTERM until its modules are imported.
  shareProcessNamespace: true
  {{- with .account }}
  serviceAccountName: {{ . }}
  {{- end }}
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: 35
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if gt (int (.process.replicas | default 1)) 1 }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "jobmon.selector" . | nindent 10 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "jobmon.image" .root | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: {{ toJson .command }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      envFrom:
        - secretRef: {name: {{ .process.existingSecret }}}
      {{- $settings := $values.settings }}
      {{- if and $values.actor.enabled (has .component (list "web" "collector" "actor")) }}
      {{- $settings = merge (dict) $settings (dict "JOBMON_ACTIONS" "true") }}
      {{- end }}
      {{- if and $values.ingress.enabled (ne $values.ingress.path "/") (eq .component "web") }}
      {{- $settings = merge (dict) $settings (dict "JOBMON_PATH_PREFIX" $values.ingress.path) }}
      {{- end }}
      {{- range $file, $name := dict "queues.toml" "JOBMON_QUEUES" "rules.toml" "JOBMON_RULES" }}
      {{- if hasKey $values.files $file }}
      {{- $settings = merge (dict) $settings (dict $name (printf "/etc/jobmon/%s" $file)) }}
      {{- end }}
      {{- end }}
      {{- if or $settings $values.env }}
      env:
        {{- range $name, $value := $settings }}
        - name: {{ $name }}
          value: {{ include "jobmon.text" $value }}
        {{- end }}
        {{- with $values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      {{- with .container }}
      {{- . | nindent 6 }}
      {{- end }}
      resources:
        {{- toYaml .process.resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if $values.files }}
        - {name: files, mountPath: /etc/jobmon, readOnly: true}
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {medium: Memory, sizeLimit: 64Mi}
    {{- if $values.files }}
    - name: files
      configMap: {name: {{ .files | default (printf "%s-files" (include "jobmon.name" .root)) }}}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The egress rules of every process: DNS, MongoDB, and networkPolicy.extraEgress. */}}
{{- define "jobmon.egress" -}}
{{- with .Values.networkPolicy -}}
- ports:
    {{- range .dnsPorts }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
- ports:
    {{- range .mongoPorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .mongoTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{/* A process without a port. Takes root and component, and optionally container, with its probes. */}}
{{- define "jobmon.background" -}}
{{- $process := index .root.Values .component -}}
{{- if $process.enabled }}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "jobmon.metadata" . | nindent 2 }}
spec:
  replicas: {{ $process.replicas }}
  selector:
    matchLabels:
      {{- include "jobmon.selector" . | nindent 6 }}
  template:
    {{- $pod := dict "process" $process "command" (list "jobmon" .component) }}
    {{- $_ := set $pod "account" (include "jobmon.serviceAccount" .root) }}
    {{- include "jobmon.pod" (merge $pod .) | nindent 4 }}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "jobmon.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "jobmon.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  egress:
    {{- include "jobmon.egress" .root | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}
