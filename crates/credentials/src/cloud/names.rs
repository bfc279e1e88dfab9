//! Which cloud a registry belongs to, from its name alone.
//!
//! The rules are those of the three clouds' own kubelet plugins: cloud-provider-aws' host pattern, cloud-provider-gcp's
//! list of registries and cloud-provider-azure's login server pattern. Pure: no I/O, no clock.

use std::fmt;

use serde::Serialize;

use prepull_core::image_ref::ImageRef;

/// What follows the region in the host of a private ECR registry, one or two per AWS partition.
const ECR_SUFFIXES: [&str; 9] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "on.aws",
    "on.amazonwebservices.com.cn",
    "sc2s.sgov.gov",
    "c2s.ic.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
];
/// Hosts of ECR Public.
const ECR_PUBLIC_HOSTS: [&str; 2] = ["public.ecr.aws", "ecr-public.aws.com"];
/// The only region that hands out tokens for ECR Public.
pub const ECR_PUBLIC_REGION: &str = "us-east-1";
/// Google's registries, as credential patterns: `*` stands for one label.
const GOOGLE_PATTERNS: [&str; 4] = ["container.cloud.google.com", "gcr.io", "*.gcr.io", "*.pkg.dev"];
/// Digits of an AWS account's number.
const ACCOUNT_DIGITS: usize = 12;

/// A cloud whose registries are asked without a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloudProvider {
    /// Amazon's private registries.
    Ecr,
    /// Amazon's public registry, which limits anonymous pulls.
    EcrPublic,
    /// Google's Artifact Registry and Container Registry.
    Gcp,
    /// Azure's container registries.
    Acr,
}

impl CloudProvider {
    /// All values, for metrics that show each from the start.
    pub const ALL: [Self; 4] = [Self::Ecr, Self::EcrPublic, Self::Gcp, Self::Acr];

    /// The name in JSON, in tables and in front of a problem.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ecr => "ecr",
            Self::EcrPublic => "ecr-public",
            Self::Gcp => "gcp",
            Self::Acr => "acr",
        }
    }
}

impl fmt::Display for CloudProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The cloud that an image's registry belongs to, `None` for every other registry. Follows from the name alone, on or
/// off that cloud.
pub fn provider_of(image: &ImageRef) -> Option<CloudProvider> {
    RegistryName::of(registry_of(image)).map(|name| match name {
        RegistryName::Ecr(_) => CloudProvider::Ecr,
        RegistryName::EcrPublic => CloudProvider::EcrPublic,
        RegistryName::Google(_) => CloudProvider::Gcp,
        RegistryName::Acr(_) => CloudProvider::Acr,
    })
}

/// The host and port by which an image's registry is judged: the first part of its name. That is the registry, but for
/// hosts that the image grammar does not take for one and the kubelet hands to plugins all the same, such as those with
/// an underscore.
pub fn registry_of(image: &ImageRef) -> &str {
    match image.registry().as_str() {
        "" => image.repository().split('/').next().unwrap_or_default(),
        registry => registry,
    }
}

/// What a cloud registry's name says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryName {
    /// A private ECR registry.
    Ecr(EcrHost),
    /// ECR Public.
    EcrPublic,
    /// A registry of Google's, with the credential pattern that it matches.
    Google(&'static str),
    /// A registry of Azure's.
    Acr(AcrHost),
}

impl RegistryName {
    /// Reads a registry's host and port; `None` if it is no cloud's.
    pub fn of(registry: &str) -> Option<Self> {
        // Amazon's plugin looks at the host without its port; the other two compare the port as well
        let host = registry.split(':').next().unwrap_or_default();
        if let Some(ecr) = EcrHost::parse(host) {
            return Some(Self::Ecr(ecr));
        }
        if is_ecr_public(host) {
            return Some(Self::EcrPublic);
        }
        google_pattern(registry).map(Self::Google).or_else(|| AcrHost::parse(registry).map(Self::Acr))
    }
}

/// The host of a private ECR registry, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcrHost {
    /// The twelve digits of the account that owns the registry.
    pub account: String,
    /// The region, as written: it is asked for the token, wherever the node is.
    pub region: String,
    /// The partition's suffix.
    pub suffix: &'static str,
    /// Whether the name asks for the FIPS endpoint.
    pub fips: bool,
}

impl EcrHost {
    /// Reads a host without port: twelve digits, `.dkr.ecr.` or `.dkr-ecr.` (`-fips` may follow `ecr`), the region, and
    /// a suffix of a known partition.
    pub fn parse(host: &str) -> Option<Self> {
        let (account, rest) = host.split_at_checked(ACCOUNT_DIGITS)?;
        if !account.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let rest = rest.strip_prefix(".dkr")?.strip_prefix(['.', '-'])?.strip_prefix("ecr")?;
        let (rest, fips) = match rest.strip_prefix("-fips") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (region, suffix) = rest.strip_prefix('.')?.split_once('.')?;
        let suffix = ECR_SUFFIXES.into_iter().find(|known| *known == suffix)?;
        is_region(region).then(|| Self { account: account.to_owned(), region: region.to_owned(), suffix, fips })
    }

    /// Whether the name is one of the dual-stack names, whose API is reached over IPv6 too.
    pub fn dual_stack(&self) -> bool {
        matches!(self.suffix, "on.aws" | "on.amazonwebservices.com.cn")
    }
}

/// Whether a host without port is ECR Public's.
pub fn is_ecr_public(host: &str) -> bool {
    ECR_PUBLIC_HOSTS.contains(&host)
}

/// The pattern of Google's that a registry matches. A port is part of what is compared, so a name with one matches
/// nothing, as in the kubelet.
pub fn google_pattern(registry: &str) -> Option<&'static str> {
    GOOGLE_PATTERNS.into_iter().find(|pattern| match pattern.strip_prefix('*') {
        Some(rest) => registry.strip_suffix(rest).is_some_and(|label| !label.contains('.')),
        None => registry == *pattern,
    })
}

/// Which of Azure's clouds a registry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AzureCloud {
    /// `.azurecr.io`
    Public,
    /// `.azurecr.cn`
    China,
    /// `.azurecr.us`
    Government,
    /// `.azurecr.de`
    Germany,
}

/// The login server of an ACR registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcrHost {
    /// The host, as written.
    pub login_server: String,
    /// Azure's cloud, from the last label.
    pub cloud: AzureCloud,
}

impl AcrHost {
    /// Reads the login server at the start of an image or registry name: letters, digits and inner hyphens, perhaps a
    /// region and `geo` (`foo.eastus2.geo.azurecr.io`), `.azurecr.`, and `io`, `cn`, `de` or `us`, then the end or a
    /// slash. A port makes it none. Hyphens come with Azure's domain name label scope, and the regional names with
    /// geo-replication; older versions of Azure's plugin know neither.
    pub fn parse(name: &str) -> Option<Self> {
        let host = name.split('/').next().unwrap_or_default();
        let (registry, rest) = host.split_once('.')?;
        if !is_acr_label(registry) {
            return None;
        }
        let rest = match rest.split_once(".geo.") {
            Some((region, rest)) if is_acr_label(region) => rest,
            Some(_) => return None,
            None => rest,
        };
        let cloud = match rest {
            "azurecr.io" => AzureCloud::Public,
            "azurecr.cn" => AzureCloud::China,
            "azurecr.us" => AzureCloud::Government,
            "azurecr.de" => AzureCloud::Germany,
            _ => return None,
        };
        Some(Self { login_server: host.to_owned(), cloud })
    }
}

fn is_acr_label(label: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric();
    label.bytes().next().is_some_and(plain)
        && label.bytes().last().is_some_and(plain)
        && label.bytes().all(|b| plain(b) || b == b'-')
}

fn is_region(region: &str) -> bool {
    region.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && region.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn provider(image: &str) -> Option<CloudProvider> {
        provider_of(&ImageRef::parse(image).unwrap())
    }

    #[test]
    fn providers_follow_from_the_name() {
        assert_eq!(provider("123456789012.dkr.ecr.eu-west-1.amazonaws.com/a"), Some(CloudProvider::Ecr));
        assert_eq!(provider("public.ecr.aws/docker/library/busybox"), Some(CloudProvider::EcrPublic));
        assert_eq!(provider("gcr.io/p/a"), Some(CloudProvider::Gcp));
        assert_eq!(provider("team.azurecr.us/a"), Some(CloudProvider::Acr));
        assert_eq!(provider("my-abc123.azurecr.io/a"), Some(CloudProvider::Acr));
        assert_eq!(provider("foo.eastus2.geo.azurecr.io/a"), Some(CloudProvider::Acr));
        for other in [
            "-a.azurecr.io/x",
            "a-.azurecr.io/x",
            "a.b.azurecr.io/x",
            "a.b.c.geo.azurecr.io/x",
            "a.b.geo.azurecr.io.example/x",
        ] {
            assert!(ImageRef::parse(other).is_err() || provider(other).is_none(), "{other}");
        }
        assert_eq!(provider("busybox"), None);
        assert_eq!(provider("reg_istry.example.com/app"), None);
        assert_eq!(provider("123456789012.dkr.ecr.us_east_1.amazonaws.com/a"), Some(CloudProvider::Ecr));
    }

    #[test]
    fn ports_count_for_google_and_azure_only() {
        assert_eq!(provider("public.ecr.aws:443/a"), Some(CloudProvider::EcrPublic));
        assert_eq!(provider("gcr.io:443/p/a"), None);
        assert_eq!(provider("team.azurecr.io:443/a"), None);
    }

    #[test]
    fn a_star_is_one_label() {
        assert_eq!(google_pattern("eu.gcr.io"), Some("*.gcr.io"));
        assert_eq!(google_pattern("a.b.gcr.io"), None);
        assert_eq!(google_pattern("pkg.dev"), None);
    }

    #[test]
    fn names_are_serialised_as_printed() {
        for provider in CloudProvider::ALL {
            assert_eq!(serde_json::to_value(provider).unwrap(), provider.as_str());
        }
    }

    proptest! {
        #[test]
        fn every_ecr_name_is_read_back(
            account in "[0-9]{12}",
            region in "[a-zA-Z0-9][a-zA-Z0-9_-]{0,12}",
            suffix in proptest::sample::select(&ECR_SUFFIXES[..]),
            separator in "[.-]",
            fips: bool,
        ) {
            let fips_label = if fips { "-fips" } else { "" };
            let host = format!("{account}.dkr{separator}ecr{fips_label}.{region}.{suffix}");
            prop_assert_eq!(EcrHost::parse(&host), Some(EcrHost { account, region, suffix, fips }));
            let longer = format!("{host}.evil.example");
            prop_assert_eq!(EcrHost::parse(&longer), None);
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,60}") {
            prop_assert!(EcrHost::parse(&text).is_none());
            prop_assert!(google_pattern(&text).is_none() || text.contains('.'));
            prop_assert!(AcrHost::parse(&text).is_none_or(|host| text.starts_with(&host.login_server)));
        }
    }
}
