//! Amazon's lookups end to end against moto, which serves ECR, STS and the instance metadata and, where told to, checks
//! signatures and policies. `hack/install-moto` installs it; `PREPULL_TEST_MOTO` names its `moto_server`, or else it is
//! looked for in the PATH. Without it the tests count as ignored, or fail where `PREPULL_TEST_REQUIRE_ALL=1`.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    collections::BTreeMap,
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use prepull::{
    credentials::cloud::{CloudLookup, CloudOptions, Clouds, Routes},
    image_ref::ImageRef,
};
use secrecy::ExposeSecret;

const IMAGE: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:1";
/// moto's password for the account; every token of it expired in 2015.
const PASSWORD: &str = "123456789012-auth-token";

type Scenario = fn(&Path) -> Result<(), Failed>;

const SCENARIOS: [(&str, Scenario); 4] = [
    ("ecr_gives_a_token_that_is_used_once", ecr_gives_a_token_that_is_used_once),
    ("sts_takes_a_web_identity", sts_takes_a_web_identity),
    ("the_instance_metadata_gives_keys", the_instance_metadata_gives_keys),
    ("signatures_are_checked", signatures_are_checked),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let required = env::var("PREPULL_TEST_REQUIRE_ALL").is_ok_and(|value| value == "1");
    let moto = find_moto();
    let trials = SCENARIOS.into_iter().map(|(name, scenario)| match moto.clone() {
        Some(moto) => Trial::test(name, move || scenario(&moto)),
        None if required => Trial::test(name, || Err("moto_server is missing: run hack/install-moto".into())),
        None => Trial::test(format!("{name} (moto_server is missing)"), || Ok(())).with_ignored_flag(true),
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn find_moto() -> Option<PathBuf> {
    if let Some(path) = env::var_os("PREPULL_TEST_MOTO") {
        return Some(path.into());
    }
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths).map(|dir| dir.join("moto_server")).find(|file| file.is_file())
}

/// A moto of its own, killed at the end.
struct Moto {
    process: Child,
    address: SocketAddr,
}

impl Moto {
    /// Starts one; after the first `unchecked` actions it checks signatures and policies.
    fn start(program: &Path, unchecked: Option<u32>) -> Result<Self, Failed> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
        if let Some(unchecked) = unchecked {
            command.env("INITIAL_NO_AUTH_ACTION_COUNT", unchecked.to_string());
        }
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut moto = Self { process, address };
        for _ in 0..300 {
            if moto.send("GET /moto-api/ HTTP/1.0\r\n\r\n").is_ok() {
                return Ok(moto);
            }
            if let Some(status) = moto.process.try_wait()? {
                return Err(format!("moto_server ended with {status}").into());
            }
            wait(Duration::from_millis(100));
        }
        Err("moto_server did not listen within 30 s".into())
    }

    /// Sends one request as it is, and gives the answer.
    fn send(&self, request: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// One of IAM's actions, with a signature that is not looked at yet.
    fn iam(&self, parameters: &[(&str, &str)]) -> Result<String, Failed> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let length = body.len();
        let answer = self.send(&format!(
            "POST / HTTP/1.0\r\nHost: iam.amazonaws.com\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, \
             Signature=x\r\nContent-Length: {length}\r\n\r\n{body}"
        ))?;
        if answer.contains(" 200 OK") { Ok(answer) } else { Err(answer.into()) }
    }

    /// A node that knows this moto, and nothing else.
    fn node(&self, variables: &[(&str, &str)]) -> Clouds {
        let mut env = BTreeMap::from([("AWS_ENDPOINT_URL".to_owned(), format!("http://{}", self.address))]);
        env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let routes = Routes::only::<String>([]);
        Clouds::new(CloudOptions { env, routes, ..CloudOptions::default() })
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "there is no runtime while moto starts")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}

fn lookup(clouds: &Clouds) -> CloudLookup {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(clouds.lookup(&ImageRef::parse(IMAGE).unwrap()))
}

fn expect_token(found: &CloudLookup) -> Result<(), Failed> {
    match &found.found[..] {
        [(_, auth)] if auth.username == "AWS" && auth.password.expose_secret() == PASSWORD => Ok(()),
        _ => Err(format!("no token: {:?}", found.problems).into()),
    }
}

fn ecr_gives_a_token_that_is_used_once(moto: &Path) -> Result<(), Failed> {
    let moto = Moto::start(moto, None)?;
    let clouds = moto.node(&[("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")]);
    expect_token(&lookup(&clouds))?;
    // it was not kept, since it had expired: without a server there is none
    drop(moto);
    let found = lookup(&clouds);
    if found.found.is_empty() { Ok(()) } else { Err("an expired token was kept".into()) }
}

fn sts_takes_a_web_identity(moto: &Path) -> Result<(), Failed> {
    let moto = Moto::start(moto, None)?;
    let dir = tempfile::tempdir()?;
    let token = dir.path().join("token");
    std::fs::write(&token, "header.payload.signature")?;
    let clouds = moto.node(&[
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/puller"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
    ]);
    expect_token(&lookup(&clouds))
}

fn the_instance_metadata_gives_keys(moto: &Path) -> Result<(), Failed> {
    let moto = Moto::start(moto, None)?;
    let endpoint = format!("http://{}", moto.address);
    expect_token(&lookup(&moto.node(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)])))
}

fn signatures_are_checked(moto: &Path) -> Result<(), Failed> {
    let moto = Moto::start(moto, Some(3))?;
    let version = ("Version", "2010-05-08");
    let user = ("UserName", "puller");
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecr:GetAuthorizationToken","Resource":"*"}]}"#;
    moto.iam(&[("Action", "CreateUser"), user, version])?;
    moto.iam(&[("Action", "PutUserPolicy"), user, ("PolicyName", "p"), ("PolicyDocument", policy), version])?;
    let keys = moto.iam(&[("Action", "CreateAccessKey"), user, version])?;
    let field = |name: &str| {
        let (_, rest) = keys.split_once(&format!("<{name}>")).unwrap();
        rest.split('<').next().unwrap().to_owned()
    };
    let (id, secret) = (field("AccessKeyId"), field("SecretAccessKey"));

    expect_token(&lookup(&moto.node(&[("AWS_ACCESS_KEY_ID", &id), ("AWS_SECRET_ACCESS_KEY", &secret)])))?;
    let refused = lookup(&moto.node(&[("AWS_ACCESS_KEY_ID", &id), ("AWS_SECRET_ACCESS_KEY", "another")]));
    match &refused.problems[..] {
        [problem] if problem.starts_with("ecr: the ECR API refused a token: 403 Forbidden") => Ok(()),
        _ => Err(format!("{refused:?}").into()),
    }
}
