use super::*;
use crate::list::ImageList;

/// What is given, what its refusal calls it, and the list that it means.
const CASES: &[(&str, &str, &str, &str)] = &[
    (
        "an image pull job of OpenKruise",
        "apiVersion: apps.kruise.io/v1alpha1\nkind: ImagePullJob\nmetadata: {name: j}\nspec:\n  image: nginx:1.25\n  pullSecrets: [acme]\n  selector: {matchLabels: {gpu: h100}}\n",
        "an ImagePullJob manifest",
        "images:\n- image: nginx:1.25\n  imagePullSecrets:\n  - name: acme\n  nodeSelector:\n    gpu: h100\n",
    ),
    (
        "an image list pull job of OpenKruise",
        "apiVersion: apps.kruise.io/v1alpha1\nkind: ImageListPullJob\nspec: {images: ['nginx:1.25', 'redis:7']}\n",
        "an ImageListPullJob manifest",
        "images:\n- nginx:1.25\n- redis:7\n",
    ),
    (
        "an image cache of kube-fledged",
        "apiVersion: kubefledged.io/v1alpha2\nkind: ImageCache\nspec:\n  cacheSpec:\n  - images: [ghcr.io/acme/a:1, {name: 'ghcr.io/acme/b:1'}]\n  - images: [ghcr.io/acme/c:1]\n    nodeSelector: {tier: backend}\n  imagePullSecrets: [{name: acme}]\n",
        "an ImageCache manifest",
        "images:\n- image: ghcr.io/acme/a:1\n  imagePullSecrets:\n  - name: acme\n- image: ghcr.io/acme/b:1\n  imagePullSecrets:\n  - name: acme\n- image: ghcr.io/acme/c:1\n  imagePullSecrets:\n  - name: acme\n  nodeSelector:\n    tier: backend\n",
    ),
    (
        "a pod",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  imagePullSecrets: [{name: acme}]\n  initContainers: [{name: i, image: 'busybox:1.36'}]\n  containers: [{name: a, image: 'nginx:1.25', imagePullPolicy: Always}]\n",
        "a Pod manifest",
        "images:\n- image: busybox:1.36\n  imagePullSecrets:\n  - name: acme\n- image: nginx:1.25\n  imagePullPolicy: Always\n  imagePullSecrets:\n  - name: acme\n",
    ),
    (
        "a deployment and a service",
        "apiVersion: v1\nkind: Service\nspec: {}\n---\napiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      nodeSelector: {gpu: h100}\n      containers: [{image: 'nginx:1.25'}]\n",
        "a set of manifests (Service, Deployment)",
        "images:\n- image: nginx:1.25\n  nodeSelector:\n    gpu: h100\n",
    ),
    (
        "a cron job",
        "apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{image: 'nginx:1.25'}]}}}}}\n",
        "a CronJob manifest",
        "images:\n- nginx:1.25\n",
    ),
    (
        "pods as kubectl prints them",
        "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"spec\": {\"containers\": [{\"image\": \"nginx:1.25\"}]}}]}",
        "a Pod manifest",
        "images:\n- nginx:1.25\n",
    ),
    (
        "a pod that has ended",
        "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: 'nginx:1.25'}]}\nstatus: {phase: Succeeded}\n",
        "a Pod manifest",
        "images:\n- nginx:1.25\n",
    ),
    (
        "an unknown kind with images",
        "apiVersion: serving.knative.dev/v1\nkind: Service\nspec: {template: {spec: {containers: [{image: 'nginx:1.25'}]}}}\n",
        "a Service manifest",
        "images:\n- nginx:1.25\n",
    ),
    (
        "a Compose file",
        "services:\n  web: {image: 'nginx:1.25'}\n  db: {image: 'postgres:16'}\n",
        "a Compose file",
        "images:\n- nginx:1.25\n- postgres:16\n",
    ),
    (
        "values of a Helm chart",
        "replicas: 1\nimage:\n  registry: ghcr.io\n  repository: acme/app\n  tag: 1.10\n",
        "a file with values of a Helm chart",
        "images:\n- ghcr.io/acme/app:1.10\n",
    ),
    (
        "items without their key",
        "- nginx:1.25\n- image: redis:7\n  pin: true\n",
        "a list without that key",
        "images:\n- nginx:1.25\n- image: redis:7\n  pin: true\n",
    ),
    (
        "a JSON array",
        "[\"nginx:1.25\", \"redis:7\"]\n",
        "a list without that key",
        "images: [\"nginx:1.25\", \"redis:7\"]\n",
    ),
    (
        "one name a line",
        "# mine\nnginx:1.25\r\nquay.io/a/b:1  # why\n\nredis\n",
        "text with one image name a line",
        "images:\n- nginx:1.25\n- quay.io/a/b:1\n- redis\n",
    ),
    (
        "names as jsonpath prints them",
        "nginx:1.25 redis:7 nginx:1.25",
        "text with several image names on a line",
        "images:\n- nginx:1.25\n- redis:7\n",
    ),
    (
        "docker images",
        "REPOSITORY          TAG       IMAGE ID       CREATED        SIZE\nnginx               1.25      4bb46517cac3   2 weeks ago    188MB\nghcr.io/acme/app    v3        0123456789ab   3 months ago   1.2GB\n<none>              <none>    ba9876543210   4 days ago     77MB\n",
        "the output of `docker images`",
        "images:\n- nginx:1.25\n- ghcr.io/acme/app:v3\n# left out without a valid image name: 1\n",
    ),
    (
        "docker images of a later version",
        "i Info →   U  In Use\nIMAGE               ID             DISK USAGE   CONTENT SIZE   EXTRA\nnginx:1.25          4bb46517cac3        272MB         72.2MB    U\nghcr.io/acme/a:v3   0123456789ab        13.2MB        4.5MB\n",
        "the output of `docker images`",
        "images:\n- nginx:1.25\n- ghcr.io/acme/a:v3\n",
    ),
    (
        "crictl images",
        "IMAGE                       TAG                 IMAGE ID            SIZE\ndocker.io/library/nginx     1.25                4bb46517cac39       70.5MB\nregistry.k8s.io/pause       3.10                873ed75102791       320kB\n",
        "the output of `crictl images`",
        "images:\n- docker.io/library/nginx:1.25\n- registry.k8s.io/pause:3.10\n",
    ),
    (
        "ctr images ls",
        "REF                          TYPE                                    DIGEST           SIZE    PLATFORMS   LABELS\ndocker.io/library/nginx:1.25 application/vnd.oci.image.index.v1+json sha256:4bb46517c 67 MiB  linux/amd64 -\nsha256:4bb46517cac3          application/vnd.oci.image.index.v1+json sha256:4bb46517c 67 MiB  linux/amd64 -\n",
        "the output of `ctr images ls`",
        "images:\n- docker.io/library/nginx:1.25\n# left out without a valid image name: 1\n",
    ),
    (
        "deployments with their images",
        "NAME   READY   UP-TO-DATE   AVAILABLE   AGE   CONTAINERS   IMAGES               SELECTOR\nweb    1/1     1            1           3d    a,b          nginx:1.25,redis:7   app=web\n",
        "a table of `kubectl get`",
        "images:\n- nginx:1.25\n- redis:7\n",
    ),
];

#[test]
fn what_other_tools_have_is_named_and_its_list_is_printed() {
    for (case, text, name, list) in CASES {
        let refused = ImageList::parse(text).unwrap_err();
        let wanted = format!("the list must be a mapping with the key `images`, and this is {name}");
        assert_eq!(refused.message, wanted, "{case}");
        let whole = format!("{}; {}", refused.message, refused.remedy);
        assert!(whole.len() <= 200, "{case}: {} bytes: {whole}", whole.len());
        assert_eq!(list_meant(text).as_deref(), Some(*list), "{case}");
        let read = ImageList::parse(list).unwrap();
        assert_eq!(read.problems, [], "{case}: the printed list is a valid one");
        assert!(!read.entries.is_empty(), "{case}");
    }
}

#[test]
fn what_is_not_known_keeps_its_own_problem() {
    for text in
        ["just text", "this is a sentence: not a list", "a: 1\n", "imges: [nginx]\n", "# nothing\n", "REPOSITORY TAG\n"]
    {
        assert_eq!(kind(text), None, "{text}");
        assert_eq!(list_meant(text), None, "{text}");
    }
    let kustomization = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n";
    assert_eq!(kind(kustomization).unwrap().name, "a Kustomization manifest");
    assert_eq!(list_meant(kustomization), None);
}

#[test]
fn a_suggested_list_is_bounded() {
    let text = (0..=MAX_SUGGESTED).fold(String::new(), |all, n| format!("{all}quay.io/a:{n}\n"));
    let list = list_meant(&text).unwrap();
    assert!(list.ends_with("# left out because the list is too long: 1\n"), "{list}");
    assert_eq!(ImageList::parse(&list).unwrap().entries.len(), MAX_SUGGESTED);
}

/// The agent names what it was given as well, and one thread does everything on the node.
#[test]
fn hostile_texts_take_no_time() {
    let most = 1 << 18;
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..5 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(",");
        writeln!(bomb, "a{n}: &a{n} [{aliases}]").unwrap();
    }
    let mut many_kinds = String::new();
    for n in 0..20_000 {
        write!(many_kinds, "---\napiVersion: v1\nkind: K{n}\n").unwrap();
    }
    for (shape, text) in [
        ("names", "nginx:1 ".repeat(most / 8)),
        ("names with commas", format!("images: [\"{}\"", "nginx:1,".repeat(most / 8))),
        ("documents", "---\nkind: A\n".repeat(most / 12)),
        ("a header", format!("IMAGE {}\nnginx:1\n", "TAG  ".repeat(most / 5))),
        ("rows", format!("IMAGE  TAG  IMAGE ID\n{}", "nginx  1  2\n".repeat(most / 12))),
        ("aliases", format!("{bomb}apiVersion: v1\nkind: Pod\n")),
        ("braces", "{{".repeat(most / 2)),
        ("indentation", "\u{a0}".repeat(most / 2)),
        ("many kinds", many_kinds),
    ] {
        let began = tokio::time::Instant::now();
        let _ = (ImageList::parse(&text).map(drop), list_meant(&text));
        assert!(began.elapsed() < std::time::Duration::from_secs(15), "{shape}: {:?}", began.elapsed());
    }
}

proptest::proptest! {
    #[test]
    fn nothing_panics_and_what_is_suggested_is_a_list(
        lines in proptest::collection::vec(
            "(IMAGE|REPOSITORY|TAG|REF|DIGEST|IMAGE ID|NAME|DISK USAGE|nginx:1|a/b|<none>|\\u{a0}|é|,| {1,4}|\t|- |kind: Pod|apiVersion: v1|spec:|image: x:1|images:|\\[|'|#|\\{){0,8}",
            0..6,
        ),
    ) {
        let text = lines.join("\n");
        let _ = ImageList::parse(&text);
        let _ = crate::list::manifest::Manifest::read(&format!("kind: ConfigMap\napiVersion: v1\ndata:\n  images.yaml: |\n    {text}"));
        if let Some(list) = list_meant(&text) {
            let read = ImageList::parse(&list).unwrap();
            proptest::prop_assert!(!read.entries.is_empty(), "{list}");
        }
    }
}
