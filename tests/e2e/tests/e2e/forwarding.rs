use e2e::{
    Client, Node,
    target::{self, Target},
    visit::{Answer, get},
};
use http::{HeaderValue, StatusCode};

struct Path {
    node: Node,
    client: Client,
    _target: Target,
}

impl Path {
    async fn start(options: &str) -> Self {
        let target = Target::http().await;
        let node = Node::start().await;
        let client = Client::publish(&node, &[&format!("target: {}\n{options}", target.url())]).await;
        Self { node, client, _target: target }
    }

    async fn get(&self, arguments: &[&str]) -> Option<Answer> {
        let answer = get(&self.node, self.client.host(), "/", arguments).await?;
        assert_eq!(answer.status, 200, "{answer:?}");
        Some(answer)
    }
}

#[tokio::test]
async fn a_target_learns_the_truth_about_its_visitor() {
    let path = Path::start("").await;
    let authority = format!("{}:{}", path.client.host(), path.node.port());
    for version in ["--http1.1", "--http2"] {
        let Some(answer) = path.get(&[version]).await else { return };
        assert_eq!(answer.seen("x-forwarded-for"), ["127.0.0.1"], "{answer:?}");
        assert_eq!(answer.seen("x-forwarded-proto"), ["https"], "{answer:?}");
        let hosts = answer.seen("x-forwarded-host");
        assert!(hosts == [path.client.host()] || hosts == [authority.as_str()], "{hosts:?}");
        let [forwarded] = &answer.seen("forwarded")[..] else { panic!("one Forwarded: {answer:?}") };
        let forwarded = forwarded.to_ascii_lowercase();
        assert!(forwarded.contains("for=127.0.0.1") || forwarded.contains("for=\"127.0.0.1"), "{forwarded}");
        assert!(forwarded.contains("proto=https") && forwarded.contains(path.client.host()), "{forwarded}");
    }
}

#[tokio::test]
async fn a_visitor_cannot_pretend_to_be_somebody_else() {
    let path = Path::start("").await;
    let lies = [
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-For: 6.6.6.6, 6.6.6.6",
        "x-forwarded-proto: 6.6.6.6",
        "X-Forwarded-Host: 6.6.6.6",
        "X-Forwarded-Port: 6666",
        "X-Forwarded-Server: 6.6.6.6",
        "Forwarded: for=6.6.6.6;proto=http",
        "X-Real-IP: 6.6.6.6",
        "True-Client-IP: 6.6.6.6",
        "CF-Connecting-IP: 6.6.6.6",
        "X-Client-IP: 6.6.6.6",
        "X_Forwarded_For: 6.6.6.6",
        "X_Real_IP: 6.6.6.6",
        "X-Forwarded_For: 6.6.6.6",
        "X_FORWARDED_PROTO: 6.6.6.6",
    ];
    for version in ["--http1.1", "--http2"] {
        let mut arguments = vec![version];
        for lie in &lies {
            arguments.extend(["-H", lie]);
        }
        let Some(answer) = path.get(&arguments).await else { return };
        assert!(!answer.text().contains("6.6.6.6") && !answer.text().contains("6666"), "{}", answer.text());
        assert_eq!(answer.seen("x-forwarded-for"), ["127.0.0.1"], "{answer:?}");
    }
}

#[tokio::test]
async fn a_visitor_cannot_have_the_truth_removed() {
    let path = Path::start("").await;
    let naming = "Connection: close, x-forwarded-for, X-Forwarded-Proto, x-forwarded-host, forwarded, host";
    let Some(answer) = path.get(&["--http1.1", "-H", naming]).await else { return };
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "host"] {
        assert_eq!(answer.seen(name).len(), 1, "{name}: {}", answer.text());
    }
}

#[tokio::test]
async fn headers_of_one_hop_do_not_reach_the_target() {
    let path = Path::start("").await;
    let Some(answer) = path
        .get(&[
            "--http1.1",
            "-H",
            "Connection: keep-alive, X-Of-This-Hop",
            "-H",
            "X-Of-This-Hop: secret-1",
            "-H",
            "Keep-Alive: timeout=secret-2",
            "-H",
            "Proxy-Authorization: Basic secret-3",
            "-H",
            "Proxy-Connection: secret-4",
            "-H",
            "TE: gzip;secret-5",
            "-H",
            "X-Of-The-Whole-Way: kept",
        ])
        .await
    else {
        return;
    };
    assert!(!answer.text().contains("secret"), "{}", answer.text());
    assert_eq!(answer.seen("x-of-the-whole-way"), ["kept"]);
}

#[tokio::test]
async fn headers_of_one_hop_do_not_reach_the_visitor() {
    let target = Target::http1(|_| async {
        let mut answer = target::answer(StatusCode::OK, "body");
        for (name, value) in [
            ("connection", "x-of-this-hop"),
            ("x-of-this-hop", "secret-1"),
            ("keep-alive", "timeout=secret-2"),
            ("proxy-connection", "secret-3"),
            ("x-of-the-whole-way", "kept"),
        ] {
            answer.headers_mut().append(name, HeaderValue::from_static(value));
        }
        answer
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    for version in ["--http1.1", "--http2"] {
        let Some(answer) = get(&node, client.host(), "/", &[version]).await else { return };
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!format!("{:?}", answer.headers).contains("secret"), "{answer:?}");
        assert_eq!(answer.header("x-of-the-whole-way"), Some("kept"));
    }
}

#[tokio::test]
async fn a_target_sees_the_host_that_its_tunnel_asks_for() {
    let target = Target::http().await;
    let node = Node::start().await;
    let options = ["", "headerMode: hostname", "headerMode: target", "headerMode: custom\nheaderHost: shop.example"];
    let tunnels: Vec<_> = options.iter().map(|option| format!("target: {}\n{option}", target.url())).collect();
    let tunnels: Vec<_> = tunnels.iter().map(String::as_str).collect();
    let client = Client::publish(&node, &tunnels).await;
    let wanted =
        [target.address.to_string(), client.hosts[1].clone(), target.address.to_string(), "shop.example".to_owned()];
    for version in ["--http1.1", "--http2"] {
        for (index, wanted) in wanted.iter().enumerate() {
            let Some(answer) = get(&node, &client.hosts[index], "/", &[version]).await else { return };
            let hosts = answer.seen("host");
            let with_port = format!("{wanted}:{}", node.port());
            assert!(hosts == [wanted.as_str()] || index == 1 && hosts == [with_port], "{}: {hosts:?}", options[index]);
        }
    }
}

#[tokio::test]
async fn a_cookie_split_by_http2_arrives_as_one() {
    let path = Path::start("").await;
    let Some(answer) = path.get(&["--http2", "-H", "Cookie: a=1; b=2; c=3"]).await else { return };
    assert_eq!(answer.seen("cookie"), ["a=1; b=2; c=3"], "{}", answer.text());
}
