//! The texts of runtimes, and what each of them means.
//!
//! Every cause has a recorded text in `tests/vectors/runtime-errors.json`.

use super::ErrorClass;

/// Something to find in a runtime's text, all in lower case.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pattern {
    /// Parts that follow each other, separated by asterisks.
    Text(&'static str),
    /// The same, unless the text reports an HTTP status: then it may quote a server's body, which says nothing about
    /// this node.
    OwnText(&'static str),
    /// An HTTP status from the first to the last of these.
    Status(u16, u16),
    /// A proxy that does not open a tunnel.
    RefusedTunnel,
}

/// What is known about a failure beyond its class.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cause {
    /// Its name in the recorded texts.
    pub(super) name: &'static str,
    /// What to do about it, in one sentence.
    pub(super) remedy: &'static str,
}

/// If any of the patterns is found, the failure is of this class, and of this cause.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) class: ErrorClass,
    pub(super) cause: Option<Cause>,
    pub(super) patterns: &'static [Pattern],
}

const fn class(class: ErrorClass, patterns: &'static [Pattern]) -> Rule {
    Rule { class, cause: None, patterns }
}

const fn cause(class: ErrorClass, name: &'static str, remedy: &'static str, patterns: &'static [Pattern]) -> Rule {
    Rule { class, cause: Some(Cause { name, remedy }), patterns }
}

use Pattern::{OwnText, RefusedTunnel, Status, Text};

/// How runtimes say that they cannot read a name.
pub(super) const INVALID_NAME: &[Pattern] = &[
    Text("invalid reference format"),
    Text("failed to parse image reference"),
    Text("short name mode is enforcing"),
    Text("short-name*did not resolve to an alias"),
    Text("invalid image name"),
];

/// All rules. The first one that matches decides: what is more telling comes first.
pub(super) const RULES: &[Rule] = &[
    class(
        ErrorClass::SignatureValidationFailed,
        &[Text("signaturevalidationfailed"), Text("signature validation failed"), Text("source image rejected:")],
    ),
    // the runtime's own parts
    cause(
        ErrorClass::RuntimeUnavailable,
        "cri-disabled",
        "Enable containerd's CRI plugin: remove `cri` from `disabled_plugins` in config.toml and restart; if it is enabled, containerd's log says why it was not loaded.",
        &[Text("unknown service runtime.v1")],
    ),
    class(ErrorClass::RuntimeUnavailable, &[Text("cannot connect to the docker daemon")]),
    cause(
        ErrorClass::RuntimeMisconfigured,
        "decoder-missing",
        "Install the decoder that the message names (`ctd-decoder` of imgcrypt for encrypted images) in the runtime's PATH on this node, or list an image that is not encrypted.",
        &[
            OwnText("exec: \"*executable file not found in $path"),
            OwnText("failed to get stream processor*ctd-decoder"),
        ],
    ),
    cause(
        ErrorClass::RuntimeMisconfigured,
        "decryption-key-missing",
        "Give the runtime on this node the private key of the encrypted image, or list an image that is not encrypted.",
        &[OwnText("missing private key needed for decryption"), OwnText("no suitable key unwrapper found")],
    ),
    cause(
        ErrorClass::RuntimeMisconfigured,
        "plugin-not-answering",
        "Start the runtime's plugin (such as a remote snapshotter) whose socket the message names, or remove it from the runtime's configuration on this node.",
        &[OwnText("dial unix*.sock: ")],
    ),
    cause(
        ErrorClass::RuntimeMisconfigured,
        "snapshotter-missing",
        "Install or start the snapshotter that the runtime's configuration names on this node, or configure `overlayfs`; then restart the runtime.",
        &[
            OwnText("no unpack platforms defined"),
            OwnText("snapshotter*was not found"),
            OwnText("snapshotter not loaded"),
        ],
    ),
    // what the image is
    class(
        ErrorClass::DamagedContent,
        &[
            OwnText("failed to extract layer*unexpected eof"),
            OwnText("failed to extract layer*: eof"),
            OwnText("failed to extract layer*gzip: invalid"),
            OwnText("failed to extract layer*flate: corrupt"),
            OwnText("failed to extract layer*archive/tar: "),
            OwnText("failed to extract layer*invalid tar header"),
            OwnText("failed to extract layer*invalid checksum"),
            OwnText("failed to extract layer*magic number mismatch"),
            OwnText("failed to extract layer*unpigz: "),
            OwnText("wrong diff id"),
            OwnText("unexpected commit digest"),
            OwnText("unexpected commit size"),
            OwnText("failed size validation"),
            // CRI-O applies a layer from a file that is complete
            OwnText("processing tar file(*unexpected eof"),
            OwnText("processing tar file(*archive/tar: "),
            OwnText("processing tar file(*gzip: invalid"),
            OwnText("processing tar file(*flate: corrupt"),
            OwnText("unpacking failed (*unexpected eof"),
            OwnText("unpacking failed (*archive/tar: "),
            OwnText("digest did not match, expected"),
            OwnText("does not match provided manifest digest"),
        ],
    ),
    cause(
        ErrorClass::UnsupportedArtifact,
        "schema-1",
        "Build and push the image again with a current tool: its manifest has the old format `schema 1`, which this runtime no longer reads.",
        &[
            Text("schema 1 image manifests are no longer supported"),
            Text("distribution.manifest.v1+*no longer supported"),
            Text("unsupported manifest*distribution.manifest.v1+"),
        ],
    ),
    cause(
        ErrorClass::UnsupportedArtifact,
        "config-does-not-fit",
        "List a container image: this is another artifact (a Helm chart, for instance), or has layers of an unknown type. If it is an image, push it again: its configuration and layers do not match.",
        &[OwnText("mismatched image rootfs and manifest layers")],
    ),
    // who answers
    cause(
        ErrorClass::RegistryUnavailable,
        "no-token",
        "Check the registry's token server: its answer has no token, so it is down, or a proxy or captive portal answers in its place.",
        &[
            Text("unable to decode token response"),
            Text("authorization server did not include a token"),
            Text("bearer token: invalid character"),
            Text("bearer token: unexpected end of json"),
            Text("decoding bearer token"),
        ],
    ),
    cause(
        ErrorClass::RegistryUnavailable,
        "not-a-registry",
        "Check what answers under the registry's name: it is a web page and not a registry, such as a captive portal, a proxy or a wrong address.",
        &[
            Text("could not fetch content descriptor*(text/"),
            Text("which reports content size of zero"),
            Text("unexpected media type text/"),
            Text("unsupported media type text/"),
            Text("unsupported mime type text/"),
            Text("invalid character '<' looking for beginning of value"),
            Text("malformed http response"),
        ],
    ),
    cause(
        ErrorClass::NotFound,
        "missing-blob",
        "Push the image again: the registry has its manifest, and has lost a layer, a configuration or a platform's manifest of it.",
        &[
            Text("could not fetch content descriptor*not found"),
            Text("content at *not found: not found"),
            Text("blob unknown to registry"),
            Text("blob_unknown"),
        ],
    ),
    class(
        ErrorClass::RateLimited,
        &[Status(429, 429), Text("429 too many requests"), Text("toomanyrequests"), Text("too many requests")],
    ),
    cause(
        ErrorClass::RegistryUnavailable,
        "proxy",
        "Check the proxy, which did not let the runtime through to the registry: the runtime's HTTPS_PROXY and NO_PROXY, the proxy's login, and what it allows.",
        &[
            RefusedTunnel,
            Status(407, 407),
            Text("proxyconnect tcp:"),
            Text("socks connect"),
            Text("proxy authentication required"),
        ],
    ),
    class(
        ErrorClass::UnsupportedArtifact,
        &[
            Text("no processor for media-type"),
            Text("unexpected media type"),
            Text("unsupported media type"),
            Text("unknown media type"),
            Text("unsupported mime type"),
            Text("unsupported image-specific operation on artifact"),
            Text("unsupported oci artifact"),
            Text("unsupported docker v2s1"),
        ],
    ),
    class(
        ErrorClass::NoMatchingPlatform,
        &[
            Text("no match for platform in manifest"),
            Text("no image found in manifest list for"),
            Text("no image found in image index for"),
            Text("does not match the specified platform"),
        ],
    ),
    class(
        ErrorClass::RegistryUnavailable,
        &[
            Status(500, 599),
            Text("registryunavailable"),
            Text("500 internal server error"),
            Text("502 bad gateway"),
            Text("503 service unavailable"),
            Text("504 gateway time"),
        ],
    ),
    class(ErrorClass::NoSpace, &[OwnText("no space left on device"), OwnText("disk quota exceeded")]),
    class(ErrorClass::InvalidName, INVALID_NAME),
    class(
        ErrorClass::RegistryUnavailable,
        &[
            Text("tls handshake timeout"),
            Text("no such host"),
            Text("server misbehaving"),
            Text("temporary failure in name resolution"),
            Text("name or service not known"),
            Text("no address associated with hostname"),
            Text("connection refused"),
            Text("connection reset by peer"),
            Text("connection timed out"),
            Text("broken pipe"),
            Text("no route to host"),
            Text("host is down"),
            Text("network is unreachable"),
            Text("i/o timeout"),
            Text("timeout awaiting response headers"),
            Text("client.timeout exceeded while awaiting headers"),
            Text("http2: client connection lost"),
            Text("http2: server sent goaway"),
            Text("stream error: stream id"),
            Text("unexpected eof"),
            Text(": eof"),
        ],
    ),
    class(
        ErrorClass::Tls,
        &[
            Text("x509:"),
            Text("tls:"),
            Text("certificate"),
            Text("server gave http response to https client"),
            Text("first record does not look like a tls handshake"),
        ],
    ),
    // before the credentials: a token server that does not answer in time is no refusal
    class(
        ErrorClass::Timeout,
        &[Text("context deadline exceeded"), Text("deadline exceeded"), Text("client.timeout exceeded")],
    ),
    class(
        ErrorClass::Unauthorized,
        &[
            Status(401, 401),
            Status(403, 403),
            Text("401 unauthorized"),
            Text("403 forbidden"),
            Text("pull access denied"),
            Text("authorization failed"),
            Text("no basic auth credentials"),
            Text("access to the resource is denied"),
            Text("authentication required"),
            Text("failed to authorize"),
            Text("unauthorized"),
            Text("insufficient_scope"),
        ],
    ),
    class(
        ErrorClass::NotFound,
        &[Text("manifest unknown"), Text("name unknown"), Text("404 not found"), Text("not found")],
    ),
    class(
        ErrorClass::RuntimeUnavailable,
        &[Text("transport error"), Text("error trying to connect"), Text("tcp connect error")],
    ),
    class(ErrorClass::Stalled, &[Text("context canceled"), Text("no progress")]),
];
