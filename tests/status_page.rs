//! The status page in a real browser, which is started once for all trials.

mod support;

use std::{fmt::Write as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use support::{
    agent::{Agent, AgentOptions},
    browser::{Browser, BrowserPart, Screen, chromium},
    containerd::Containerd,
    fake_cri::FakeCri,
    images::{Content, Image, Layer},
    journal::Method,
    parts::{self, ContainerdPart, Missing},
    prefix_proxy::PrefixProxy,
    registry::{Registry, RegistryKind},
    script::Rule,
    status_server::StatusServer,
    statuses::{self, HOSTILE},
    tcp_proxy::TcpProxy,
    trials::trial,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// The one browser, which trials use one after another.
type Shared = Arc<Mutex<Option<Browser>>>;

fn main() -> ExitCode {
    let browser = Shared::default();
    let trials = vec![
        on(&browser, "what_matters_comes_first", first),
        on(&browser, "a_bar_moves_by_itself", live),
        on(&browser, "a_reader_can_stop_the_refresh", stopped),
        on(&browser, "hostile_texts_are_text", hostile),
        on(&browser, "hostile_names_and_errors_of_a_real_agent_are_text", real_agent),
        on(&browser, "nothing_is_wider_than_a_telephone", narrow),
        on(&browser, "every_text_stands_out_in_light_and_dark", contrast),
        on(&browser, "a_screen_reader_finds_its_way", accessible),
        on(&browser, "ten_thousand_images_stay_usable", many),
        on(&browser, "it_works_behind_the_proxy_of_pods", proxied),
        with(&browser, containerd(), "the_bar_of_a_real_pull_moves", real_pull),
    ];
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    let quit = async {
        if let Some(browser) = browser.lock().await.take() {
            // one that does not end as asked is killed with this process
            let _ = browser.quit().await;
        }
    };
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        runtime.block_on(quit);
    }
    conclusion.exit_code()
}

fn on(shared: &Shared, name: &str, run: impl AsyncFnOnce(&Browser) -> Result<()> + Send + 'static) -> Trial {
    with(shared, Ok(()), name, async |browser: &Browser, ()| run(browser).await)
}

/// A runtime and a registry, for what a browser shows of them.
fn containerd() -> Result<ContainerdPart, Missing> {
    parts::docker_registry().and_then(|_| ContainerdPart::in_path())
}

/// A trial that needs another part besides.
fn with<P: Send + 'static>(
    shared: &Shared,
    other: Result<P, Missing>,
    name: &str,
    run: impl AsyncFnOnce(&Browser, P) -> Result<()> + Send + 'static,
) -> Trial {
    let shared = shared.clone();
    let both = chromium().and_then(|browser| other.map(|other| (browser, other)));
    trial(&format!("chromium::{name}"), both, async move |(part, other): (BrowserPart, P)| {
        let mut browser = shared.lock().await;
        if browser.is_none() {
            *browser = Some(Browser::start(&part).await?);
        }
        let browser = browser.as_ref().context("it was started just now")?;
        browser.show_on(Screen::WIDE).await?;
        // what a trial before this one left behind
        browser.complaints().await?;
        run(browser, other).await?;
        let complaints = browser.complaints().await?;
        ensure!(complaints.is_empty(), "the browser complains: {complaints:#?}");
        Ok(())
    })
}

fn page(server: &StatusServer) -> String {
    format!("http://{}/", server.address())
}

/// The page as it stands, which no refresh takes away during a trial.
fn still(server: &StatusServer) -> String {
    page(server) + "?refresh=off"
}

/// Runs a script again and again until it returns true; one that a refresh interrupts is run again.
async fn until(browser: &Browser, what: &str, script: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let result = browser.run(script).await;
        if matches!(result, Ok(Value::Bool(true))) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "waited in vain until {what}: {result:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn first(browser: &Browser) -> Result<()> {
    let server = StatusServer::start(statuses::at_work())?;
    browser.open(&still(&server)).await?;
    let seen = browser
        .run("return [document.title, document.querySelector('h1').innerText, document.querySelector('.why').innerText, [...document.querySelectorAll('main h2')].map(h => h.innerText)]")
        .await?;
    ensure!(seen[0] == "node-1 is not warm · prepull" && seen[1] == "node-1 is not warm", "{seen}");
    ensure!(seen[2].as_str().is_some_and(|why| why.starts_with("2 of 10 required images are present")), "{seen}");
    ensure!(
        seen[3] == json!(["Node", "Failing 5", "Pulling 2", "Waiting 2", "Present 2", "For other nodes 1"]),
        "{seen}"
    );
    // what fails: its class, what to do, what was said, and when it goes on
    let text = browser.run("return document.querySelector('#failing').innerText").await?;
    for wanted in [
        "Unauthorized 1\n",
        "Check that the image exists",
        "ErrImagePull: failed to authorize: 401 Unauthorized",
        "2 attempts failed · next in 42 s (03:12:42 UTC)",
        "credentials: pull secret team/acme-registry: there is no such Secret",
    ] {
        ensure!(text.as_str().is_some_and(|text| text.contains(wanted)), "{wanted} is not in {text}");
    }
    // the style sheet was not refused
    let weight = browser.run("return getComputedStyle(document.querySelector('h1 strong')).fontWeight").await?;
    ensure!(weight == "700", "{weight}");
    server.tell(|status| *status = statuses::warm());
    browser.open(&still(&server)).await?;
    let verdict = browser.run("return document.querySelector('h1').innerText").await?;
    ensure!(verdict == "node-1 is warm", "{verdict}");
    Ok(())
}

async fn live(browser: &Browser) -> Result<()> {
    let server = StatusServer::start(statuses::at_work())?;
    browser.open(&page(&server)).await?;
    let bar = "document.querySelector('#pulling progress')";
    let before = browser.run(&format!("window.before = true; return {bar}.position")).await?;
    ensure!(before == json!(0.65), "{before}");
    server.tell(|status| {
        let image = status.images.iter_mut().find(|image| image.downloaded_bytes.is_some());
        *image.expect("one is being downloaded") =
            statuses::downloading("ghcr.io/acme/trainer:v7", 1_800_000_000, 2_000_000_000);
    });
    // the document is a new one, and nobody but itself asked for it
    until(browser, "the bar moves", &format!("return window.before === undefined && {bar}.position === 0.9")).await
}

/// A registry that gives a MiB a second, a real runtime and a real agent; the page as a reader sees it, left alone.
async fn real_pull(browser: &Browser, part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let line = TcpProxy::start(&registry.host())?;
    line.change(|line| line.bytes_per_second = Some(1 << 20));
    let containerd = Containerd::start(&part, &[]).await?;
    containerd.route("registry.test", &line.upstream())?;
    registry.push("team/app:1", &Image::new("app", &[Layer::new(1, 30 << 20, Content::Random)?])).await?;
    let list = "images: ['registry.test/team/app:1']\n";
    let agent =
        Agent::start(env!("CARGO_BIN_EXE_prepull").as_ref(), &containerd.socket(), list, &AgentOptions::default())?;
    let downloads = |status: &Value| status["images"][0]["totalBytes"].as_u64().is_some_and(|total| total > 30 << 20);
    agent.until(PATIENCE, "it is downloaded", downloads).await?;
    browser.open(&format!("http://127.0.0.1:{}/", agent.port())).await?;
    let mut seen: Vec<f64> = Vec::new();
    let end = Instant::now() + PATIENCE;
    while seen.len() < 3 {
        let script = "const bar = document.querySelector('#pulling progress'); return bar && [bar.position, bar.textContent, document.querySelector('#pulling .facts').innerText]";
        if let Ok(Value::Array(bar)) = browser.run(script).await {
            let position = bar[0].as_f64().context("no position")?;
            if seen.last().is_none_or(|last| *last < position) {
                seen.push(position);
            }
            let facts = bar[2].as_str().unwrap_or_default();
            ensure!(facts.starts_with("downloading · ") && facts.contains(" of 30.0 MiB"), "{facts}");
        }
        ensure!(Instant::now() < end, "the bar does not move: {seen:?}");
        sleep(Duration::from_millis(50)).await;
    }
    ensure!(seen.iter().all(|position| (0.0..1.0).contains(position)), "{seen:?}");
    Ok(())
}

async fn stopped(browser: &Browser) -> Result<()> {
    let server = StatusServer::start(statuses::at_work())?;
    browser.open(&page(&server)).await?;
    let click = |name: &str| {
        format!("[...document.querySelectorAll('header a')].find(a => a.innerText === '{name}').click(); return true")
    };
    browser.run(&click("Stop refreshing")).await?;
    until(
        browser,
        "it stands still",
        "return location.search === '?refresh=off' && document.readyState === 'complete'",
    )
    .await?;
    browser.run(&click("Refresh by itself")).await?;
    until(
        browser,
        "it refreshes again",
        "return location.search === '' && /Refreshes every 5 s/.test(document.body.innerText)",
    )
    .await
}

/// What a page of texts may have: nothing that loads, runs, or takes input.
const ATTRIBUTES: &str = "['lang','charset','name','content','rel','type','href','class','id','aria-label','aria-labelledby','value','max','min','datetime','scope','colspan']";

/// Nothing of the texts became markup, nothing ran, and nothing is in the text that cannot be seen.
async fn only_text(browser: &Browser) -> Result<String> {
    let script = format!(
        "return {{hit: window.hit ?? null, \
         elements: [...document.querySelectorAll('script,img,iframe,style,base,meta[http-equiv],object,form,input,svg')].map(e => e.outerHTML), \
         attributes: [...document.querySelectorAll('*')].flatMap(e => [...e.attributes].map(a => a.name)).filter(a => !{ATTRIBUTES}.includes(a)), \
         links: [...document.querySelectorAll('[href]')].map(e => e.href).filter(h => !h.startsWith(location.origin)), \
         headings: document.querySelectorAll('h1').length, title: document.title, text: document.body.textContent}}"
    );
    let seen = browser.run(&script).await?;
    let nothing = json!([]);
    ensure!(seen["hit"].is_null() && seen["headings"] == 1, "{seen}");
    ensure!(seen["elements"] == nothing && seen["attributes"] == nothing && seen["links"] == nothing, "{seen}");
    let text = format!("{}{}", seen["title"].as_str().context("no title")?, seen["text"].as_str().context("no text")?);
    let unseen = |c: char| {
        (c.is_control() && c != '\n') || "\u{202e}\u{2066}\u{200f}\u{61c}\u{feff}\u{2028}\u{e0041}".contains(c)
    };
    ensure!(!text.contains(unseen), "{text:?}");
    Ok(text)
}

async fn hostile(browser: &Browser) -> Result<()> {
    let server = StatusServer::start(statuses::hostile())?;
    browser.open(&still(&server)).await?;
    let text = only_text(browser).await?;
    for markup in &HOSTILE[..6] {
        ensure!(text.matches(markup).count() > 10, "{markup} is not shown as it is");
    }
    for shown in ["safe\\u{202e}gpj.exe", "\\u{1b}[31mred", "\\u{feff}\\u{2028}\\u{e0041}"] {
        ensure!(text.contains(shown), "{shown} is not on the page");
    }
    let complaints = browser.complaints().await?;
    ensure!(complaints.is_empty(), "{complaints:?}");
    // were anything let through all the same, the policy would stop it, and the browser would say so
    let script = "const e = document.createElement('script'); e.textContent = 'window.hit = 1'; document.body.append(e); document.body.setAttribute('style', 'display: none'); return window.hit ?? null";
    ensure!(browser.run(script).await?.is_null());
    let complaints = browser.complaints().await?;
    ensure!(
        complaints.len() == 2 && complaints.iter().all(|c| c.contains("Content Security Policy")),
        "{complaints:?}"
    );
    Ok(())
}

/// A text in YAML's double quotes.
fn quoted(text: &str) -> String {
    let escaped = |c: char| {
        if c.is_ascii_graphic() && !"\\\"".contains(c) { c.to_string() } else { format!("\\U{:08x}", c as u32) }
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

async fn real_agent(browser: &Browser) -> Result<()> {
    let fake = FakeCri::start()?;
    let mut list = "images:\n".to_owned();
    for (n, text) in HOSTILE.iter().enumerate() {
        let image = format!("registry.example.com/team/app:{n}");
        fake.script().add(Rule::fail(Method::PullImage, tonic::Code::Unknown, text).image(&image));
        let text = quoted(text);
        writeln!(list, "- {image}\n- {text}\n- image: a/b:{n}\n  {text}: 1")?;
    }
    let agent = Agent::start(env!("CARGO_BIN_EXE_prepull").as_ref(), &fake.socket(), &list, &AgentOptions::default())?;
    for n in 0..HOSTILE.len() {
        agent.until_image(PATIENCE, &format!("registry.example.com/team/app:{n}"), "BackOff").await?;
    }
    browser.open(&format!("http://127.0.0.1:{}/?refresh=off", agent.port())).await?;
    let text = only_text(browser).await?;
    for markup in &HOSTILE[..5] {
        ensure!(text.contains(&format!("ErrImagePull: {markup}")), "no error says {markup}: {text}");
        ensure!(text.matches(markup).count() >= 2, "no name is {markup}: {text}");
    }
    Ok(())
}

async fn narrow(browser: &Browser) -> Result<()> {
    for status in [statuses::at_work(), statuses::hostile(), statuses::warm(), statuses::many(1000)] {
        let server = StatusServer::start(status)?;
        for width in [360, 320] {
            browser.show_on(Screen { width, ..Screen::NARROW }).await?;
            browser.open(&still(&server)).await?;
            let wide = browser
                .run("return [innerWidth, document.scrollingElement.scrollWidth, [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 200)).slice(0, 3)]")
                .await?;
            ensure!(wide == json!([width, width, []]), "{wide}");
        }
    }
    Ok(())
}

/// The least ratio of every visible text to what lies behind it, as WCAG counts it, with the text that has it.
const CONTRAST: &str = "
    const parts = c => c.match(/[\\d.]+/g).map(Number);
    const light = c => { const [r, g, b] = parts(c).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor, p = parts(c); if (p.length === 3 || p[3] === 1) return c; } return 'rgb(255, 255, 255)'; };
    const ratio = e => { const [a, b] = [light(getComputedStyle(e).color), light(behind(e))]; return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
    const texts = [...document.querySelectorAll('body *')].filter(e => !e.closest('progress, meter') && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
    const worst = texts.map(e => [ratio(e), e.outerHTML.slice(0, 120)]).sort((a, b) => a[0] - b[0])[0];
    return [texts.length, worst[0], worst[1], light(behind(document.body))];";

async fn contrast(browser: &Browser) -> Result<()> {
    for status in [statuses::at_work(), statuses::warm()] {
        let server = StatusServer::start(status)?;
        for dark in [false, true] {
            browser.show_on(Screen { dark, ..Screen::WIDE }).await?;
            browser.open(&still(&server)).await?;
            let seen = browser.run(CONTRAST).await?;
            let number = |at: usize| seen[at].as_f64().context("no number");
            ensure!(number(0)? > 10.0 && number(1)? >= 4.5, "{seen}");
            ensure!((number(3)? < 0.1) == dark, "dark is {dark}: {seen}");
        }
    }
    Ok(())
}

async fn accessible(browser: &Browser) -> Result<()> {
    let server = StatusServer::start(statuses::at_work())?;
    browser.open(&still(&server)).await?;
    let language = browser.run("return document.documentElement.lang").await?;
    ensure!(language == "en", "{language}");
    let tree = browser.accessibility().await?;
    let names = |role: &str| -> Vec<&str> {
        let of = tree.iter().filter(|node| node["role"]["value"] == role && node["ignored"] != true);
        of.map(|node| node["name"]["value"].as_str().unwrap_or_default()).collect()
    };
    for landmark in ["banner", "main", "contentinfo"] {
        ensure!(names(landmark).len() == 1, "{landmark}: {:?}", names(landmark));
    }
    ensure!(names("navigation") == ["Images by state"], "{:?}", names("navigation"));
    let level = |node: &Value| {
        node["properties"]
            .as_array()
            .and_then(|all| all.iter().find(|p| p["name"] == "level").map(|p| p["value"]["value"].clone()))
    };
    let first = tree.iter().filter(|node| node["role"]["value"] == "heading" && level(node) == Some(json!(1))).count();
    ensure!(first == 1, "{first} headings of the first level");
    ensure!(names("table") == ["Failing", "Pulling", "Waiting", "Present", "For other nodes"], "{:?}", names("table"));
    ensure!(names("columnheader").len() == 10, "{:?}", names("columnheader"));
    ensure!(names("rowheader").iter().any(|name| name.starts_with("ghcr.io/acme/web:2.9")), "{:?}", names("rowheader"));
    let bars = names("progressbar");
    ensure!(bars == ["Required images that are present", "ghcr.io/acme/trainer:v7"], "{bars:?}");
    ensure!(names("meter") == ["Used part of the image filesystem"], "{:?}", names("meter"));
    ensure!(
        names("link").contains(&"Stop refreshing") || names("link").contains(&"Refresh by itself"),
        "{:?}",
        names("link")
    );
    Ok(())
}

async fn many(browser: &Browser) -> Result<()> {
    let server = StatusServer::start(statuses::many(10_000))?;
    browser.open(&still(&server)).await?;
    let seen = browser
        .run("return [document.querySelectorAll('tr').length, [...document.querySelectorAll('nav a')].map(a => a.innerText), document.body.innerText.includes('and 7,900 more: see all as JSON')]")
        .await?;
    ensure!(seen[0].as_u64().is_some_and(|rows| (300..400).contains(&rows)), "{seen}");
    ensure!(
        seen[1] == json!(["Failing 1,000 RegistryUnavailable", "Waiting 1,000", "Present 8,000"]) && seen[2] == true,
        "{seen}"
    );
    Ok(())
}

async fn proxied(browser: &Browser) -> Result<()> {
    let server = StatusServer::start(statuses::at_work())?;
    let proxy = PrefixProxy::start(server.address())?;
    browser.open(&proxy.url()).await?;
    let weight = browser.run("return getComputedStyle(document.querySelector('h1 strong')).fontWeight").await?;
    ensure!(weight == "700", "the style sheet is not found: {weight}");
    browser.run("document.querySelector('header a').click(); return true").await?;
    let stopped = "return location.href.endsWith('/proxy/?refresh=off') && document.querySelector('h1') !== null";
    until(browser, "it stands still", stopped).await?;
    let link = browser.run("return document.querySelector('footer a').href").await?;
    ensure!(link == format!("{}api/v1/images", proxy.url()), "{link}");
    Ok(())
}
