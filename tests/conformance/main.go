// Command conformance answers, one JSON object per line on standard input and output, what the kubelet would do.
// The answers come from the kubelet's own packages; tests/conformance.rs compares them with this project's rules.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"k8s.io/kubernetes/pkg/credentialprovider/plugin"
	"k8s.io/kubernetes/pkg/credentialprovider/secrets"
	"k8s.io/kubernetes/pkg/util/parsers"
)

type question struct {
	Op string `json:"op"`

	// name
	Image string `json:"image"`

	// match
	Pattern string `json:"pattern"`
	Target  string `json:"target"`

	// lookup
	Secrets []secret `json:"secrets"`
	Node    []config `json:"node"`

	// plugins
	Config string   `json:"config"`
	BinDir string   `json:"binDir"`
	Images []string `json:"images"`
}

type secret struct {
	Type string            `json:"type"`
	Data map[string][]byte `json:"data"`
}

type config struct {
	Legacy bool   `json:"legacy"`
	Data   []byte `json:"data"`
}

type auth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

type answer struct {
	Error   string   `json:"error"`
	Repo    string   `json:"repo"`
	Tag     string   `json:"tag"`
	Digest  string   `json:"digest"`
	Policy  string   `json:"policy"`
	Matched bool     `json:"matched"`
	Auths   []auth   `json:"auths"`
	Calls   [][]auth `json:"calls"`
}

func main() {
	silence()
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	decoder := json.NewDecoder(in)
	encoder := json.NewEncoder(out)
	for {
		var asked question
		if err := decoder.Decode(&asked); err == io.EOF {
			return
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "conformance: cannot read the question:", err)
			os.Exit(1)
		}
		if err := encoder.Encode(respond(asked)); err != nil {
			os.Exit(1)
		}
		if err := out.Flush(); err != nil {
			os.Exit(1)
		}
	}
}

// silence keeps the packages' own log, which tells of every malformed key, off the terminal.
func silence() {
	flags := flag.NewFlagSet("klog", flag.PanicOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{"logtostderr": "false", "stderrthreshold": "FATAL"} {
		if err := flags.Set(name, value); err != nil {
			panic(err)
		}
	}
	klog.SetOutput(io.Discard)
}

func respond(asked question) answer {
	switch asked.Op {
	case "name":
		return name(asked.Image)
	case "match":
		matched, err := credentialprovider.URLsMatchStr(asked.Pattern, asked.Target)
		return answer{Matched: matched, Error: text(err)}
	case "lookup":
		return lookup(asked)
	case "plugins":
		return plugins(asked)
	default:
		return answer{Error: "unknown op " + asked.Op}
	}
}

func name(image string) answer {
	repo, tag, digest, err := parsers.ParseImageName(image)
	container := v1.Container{Image: image}
	corev1defaults.SetDefaults_Container(&container)
	return answer{Repo: repo, Tag: tag, Digest: digest, Policy: string(container.ImagePullPolicy), Error: text(err)}
}

// lookup joins the keyrings in the order in which the kubelet does: secrets, then the node's configuration.
func lookup(asked question) answer {
	node := &credentialprovider.BasicDockerKeyring{}
	for _, config := range asked.Node {
		if config.Legacy {
			parsed, err := credentialprovider.ReadDockerConfigFileFromBytes(config.Data)
			if err != nil {
				return answer{Error: text(err)}
			}
			node.Add(nil, parsed)
			continue
		}
		var parsed credentialprovider.DockerConfigJSON
		if err := json.Unmarshal(config.Data, &parsed); err != nil {
			return answer{Error: text(err)}
		}
		node.Add(nil, parsed.Auths)
	}
	var pulled []v1.Secret
	for _, given := range asked.Secrets {
		pulled = append(pulled, v1.Secret{Type: v1.SecretType(given.Type), Data: given.Data})
	}
	keyring, err := secrets.MakeDockerKeyring(pulled, node)
	if err != nil {
		return answer{Error: text(err)}
	}
	found, _ := keyring.Lookup(asked.Image)
	return answer{Auths: auths(found)}
}

// plugins registers the configuration for good, as the kubelet does at its start: every question brings names of its
// own, and patterns that match nobody else's images.
func plugins(asked question) answer {
	if err := plugin.RegisterCredentialProviderPlugins(asked.Config, asked.BinDir, nil, nil); err != nil {
		return answer{Error: text(err)}
	}
	var calls [][]auth
	for _, image := range asked.Images {
		found, _ := plugin.NewExternalCredentialProviderDockerKeyring("", "", "", "").Lookup(image)
		calls = append(calls, auths(found))
	}
	return answer{Calls: calls}
}

func auths(found []credentialprovider.TrackedAuthConfig) []auth {
	all := []auth{}
	for _, one := range found {
		all = append(all, auth{Username: one.Username, Password: one.Password})
	}
	return all
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return "error: " + err.Error()
}
