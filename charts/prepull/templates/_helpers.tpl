{{/* Names that others refer to. */}}
{{- define "prepull.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* A release called prepull has objects called prepull; another one RELEASE-prepull. */}}
{{- define "prepull.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "prepull.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "prepull.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "prepull.account" -}}
{{- default (include "prepull.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "prepull.list" -}}
{{- default (include "prepull.fullname" .) .Values.existingList -}}
{{- end -}}

{{/* Selects the pods; it can never change after an install. */}}
{{- define "prepull.selector" -}}
app.kubernetes.io/name: {{ include "prepull.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "prepull.labels" -}}
{{ include "prepull.selector" . }}
app.kubernetes.io/part-of: prepull
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* A Role or ClusterRole with its binding: a dict with top, kind, name, rules and, for a Role, the namespace; and the account, where
it is not the agents'. */}}
{{- define "prepull.right" -}}
{{- $kind := .kind -}}
{{- range $object := list $kind (printf "%sBinding" $kind) }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $object }}
metadata:
  name: {{ $.name }}
  {{- with $.namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "prepull.labels" $.top | nindent 4 }}
{{- if eq $object $kind }}
rules:
{{ $.rules }}
{{- else }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ $kind }}, name: {{ $.name }}}
subjects:
- {kind: ServiceAccount, name: {{ default (include "prepull.account" $.top) $.account }}, namespace: {{ $.top.Release.Namespace }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Named Secrets and ServiceAccounts, as rules. */}}
{{- define "prepull.secretRules" -}}
{{- with .secrets -}}
- {apiGroups: [""], resources: [secrets], resourceNames: {{ toJson . }}, verbs: [get, list, watch]}
{{ end -}}
{{- with .serviceAccounts -}}
- {apiGroups: [""], resources: [serviceaccounts], resourceNames: {{ toJson . }}, verbs: [get, list, watch]}
{{ end -}}
{{- end -}}

{{- define "prepull.socketFolder" -}}
{{- $usual := dict "containerd" "/run/containerd" "k3s" "/run/k3s/containerd" "crio" "/var/run/crio" -}}
{{- default (get $usual .Values.runtime.kind) .Values.runtime.socketFolder -}}
{{- end -}}

{{- define "prepull.imageStore" -}}
{{- $usual := dict "containerd" "/var/lib/containerd" "k3s" "/var/lib/rancher/k3s/agent/containerd" "crio" "/var/lib/containers/storage/overlay-images" -}}
{{- default (get $usual .Values.runtime.kind) .Values.runtime.imageStore -}}
{{- end -}}

{{/* The kubelet's plugins on the platforms' own node images: configuration, folder of programs, and further files. */}}
{{- define "prepull.plugins" -}}
eks:
  config: /etc/eks/image-credential-provider/config.json
  bin: /etc/eks/image-credential-provider
  files: {}
gke:
  config: /etc/srv/kubernetes/cri_auth_config.yaml
  bin: /home/kubernetes/bin
  files: {credential-plugins-config: /etc/srv/kubernetes/cri_auth_config.yaml}
aks:
  config: /var/lib/kubelet/credential-provider-config.yaml
  bin: /var/lib/kubelet/credential-provider
  files:
    credential-plugins-config: /var/lib/kubelet/credential-provider-config.yaml
    azure-config: /etc/kubernetes/azure.json
{{- end -}}

{{/* Who is guarded by a policy. */}}
{{- define "prepull.guarded" -}}
request.userInfo.username == ['system:serviceaccount', '{{ .Release.Namespace }}', '{{ include "prepull.account" . }}'].join(':')
{{- end -}}
