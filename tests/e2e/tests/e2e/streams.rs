use bytes::Bytes;
use e2e::{
    Client, Node, soon,
    target::{self, Target},
    visit,
};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, process::Stdio, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::{Semaphore, mpsc},
};
use tokio_tungstenite::{client_async, tungstenite::Message};

#[tokio::test]
async fn each_event_is_seen_before_the_next_is_sent() {
    let go = Arc::new(Semaphore::new(0));
    let gate = go.clone();
    let target = Target::http1(move |_| {
        let gate = gate.clone();
        async move {
            let events = futures_util::stream::unfold(0, move |number| {
                let gate = gate.clone();
                async move {
                    // One permit an event: the next is sent only after the visitor has seen this one.
                    gate.acquire().await.expect("the gate stays open").forget();
                    let event = Bytes::from(format!("data: event {number}\n\n"));
                    (number < 5).then(|| (Ok::<_, Infallible>(Frame::data(event)), number + 1))
                }
            });
            let body = StreamBody::new(events).boxed_unsync();
            Response::builder().header("content-type", "text/event-stream").body(body).expect("a valid answer")
        }
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    for version in ["--http1.1", "--http2"] {
        let Some(mut curl) = visit::curl(&node, client.host()) else { return };
        curl.args([version, "-N"]).arg(format!("https://{}:{}/events", client.host(), node.port()));
        let mut curl = curl.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("curl runs");
        let mut lines = BufReader::new(curl.stdout.take().expect("standard output is piped")).lines();
        for number in 0..5 {
            go.add_permits(1);
            let line = soon("an event", lines.next_line()).await.expect("a pipe");
            assert_eq!(line, Some(format!("data: event {number}")));
            assert_eq!(soon("its end", lines.next_line()).await.expect("a pipe"), Some(String::new()));
        }
        go.add_permits(1);
        assert!(soon("curl to end", curl.wait()).await.expect("curl ran").success());
    }
}

#[tokio::test]
async fn a_websocket_carries_messages_both_ways_until_it_is_closed() {
    let target = Target::tcp(|stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.expect("an upgrade");
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.expect("the visitor listens");
            }
        }
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let stream = visit::tls(&node, client.host(), &[b"http/1.1"]).await;
    let url = format!("wss://{}:{}/chat", client.host(), node.port());
    let (mut socket, answer) = soon("the upgrade", client_async(url, stream)).await.expect("an upgrade");
    assert_eq!(answer.status(), 101);
    let large = Message::binary(target::pattern_at(0, 2_000_003));
    for message in [Message::text("hello"), large, Message::text("")] {
        socket.send(message.clone()).await.expect("the target listens");
        let echoed = soon("the echo", socket.next()).await.expect("a message").expect("a message");
        assert!(echoed == message, "{} bytes came back as {}", message.len(), echoed.len());
    }
    socket.close(None).await.expect("an open socket");
    let goodbye = soon("the goodbye", socket.next()).await;
    assert!(matches!(goodbye, Some(Ok(Message::Close(_)))), "{goodbye:?}");
}

#[tokio::test]
async fn an_upgrade_that_the_target_declines_is_a_plain_answer() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "AAAA")];
    let mut request = visit::request("GET", "/", client.host(), &headers);
    let text = String::from_utf8(request).expect("text").replace("Connection: close", "Connection: Upgrade, close");
    request = text.into_bytes();
    let answer = visit::exchange(&node, client.host(), &request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_grpc_call_streams_both_ways_and_ends_with_its_trailers() {
    let target = Target::http2(|request| async move {
        assert_eq!(request.headers().get("content-type"), Some(&HeaderValue::from_static("application/grpc")));
        assert_eq!(request.headers().get("te"), Some(&HeaderValue::from_static("trailers")));
        // Answers each message as it comes, then tells the status in trailers.
        let messages = request.into_body().into_data_stream();
        let echoed = messages.map(|data| Ok::<_, Infallible>(Frame::data(data.expect("a whole body"))));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("grpc-message", HeaderValue::from_static("done"));
        let body = echoed.chain(futures_util::stream::once(async { Ok(Frame::trailers(trailers)) }));
        Response::builder()
            .header("content-type", "application/grpc")
            .body(StreamBody::new(body).boxed_unsync())
            .expect("a valid answer")
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let stream = visit::tls(&node, client.host(), &[b"h2"]).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let (messages, queue) = mpsc::channel::<Bytes>(4);
    let body = futures_util::stream::unfold(queue, |mut queue| async {
        let data = queue.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(data)), queue))
    });
    let request = Request::post(format!("https://{}:{}/greeter.Greeter/Chat", client.host(), node.port()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(Box::pin(body)))
        .expect("a valid request");
    messages.send(Bytes::from_static(b"first")).await.expect("a free place");
    let answer = soon("the head", sender.send_request(request)).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    for message in [&b"first"[..], b"second", b"third"] {
        if message != b"first" {
            messages.send(Bytes::from_static(message)).await.expect("a free place");
        }
        let frame = soon("the echo", body.frame()).await.expect("a frame").expect("a frame");
        assert_eq!(frame.into_data().ok().as_deref(), Some(message));
    }
    drop(messages);
    let mut trailers = None;
    while let Some(frame) = soon("the trailers", body.frame()).await {
        trailers = frame.expect("a frame").into_trailers().ok().or(trailers);
    }
    let trailers = trailers.expect("trailers");
    assert_eq!(trailers.get("grpc-status"), Some(&HeaderValue::from_static("0")));
    assert_eq!(trailers.get("grpc-message"), Some(&HeaderValue::from_static("done")));
    driver.abort();
}

#[tokio::test]
async fn a_slow_stream_of_one_visitor_does_not_hold_up_another() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    // Asks for far more than every window holds and never reads it.
    let mut greedy = visit::tls(&node, client.host(), &[b"http/1.1"]).await;
    let request = visit::request("GET", "/bytes/1000000000", client.host(), &[]);
    tokio::io::AsyncWriteExt::write_all(&mut greedy, &request).await.expect("the gateway reads");
    soon("the head", target::read_head(&mut greedy)).await;
    for _ in 0..5 {
        let Some(answer) = visit::get(&node, client.host(), "/", &[]).await else { return };
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}
