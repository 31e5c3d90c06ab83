//! Clients that die without a word, and such as are only slow.

use crate::{
    cluster::{Client, Cluster, http_target, slow_target, until},
    visits::{twins, twins_of},
};
use std::{sync::atomic::Ordering, time::Duration};

#[tokio::test]
async fn when_a_client_dies_visitors_of_every_node_go_to_its_twin_whatever_they_ask() {
    let cluster = Cluster::start(3).await;
    let (mut one, two) = twins(&cluster).await;
    // Node 2 keeps connections to both by then.
    for body in ["first", "second"] {
        until(body, || cluster.get(2, &two.host), |answer| answer.body == body).await;
    }
    until("news of the twin", || cluster.get(0, &two.host), |answer| answer.body == "first").await;
    one.kill();
    for node in [2, 0] {
        let mut times = Vec::new();
        for method in ["GET", "GET", "POST", "GET", "POST"] {
            let answer = cluster.ask(node, &two.host, method).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "second"), "{method} at node {node}");
            times.push(answer.took);
        }
        println!("at node {node}: {times:?}");
    }
}

#[tokio::test]
async fn a_slow_target_behind_a_living_link_is_waited_for_and_asked_once() {
    let cluster = Cluster::start(3).await;
    let (first, asked_first) = slow_target(Duration::from_secs(5)).await;
    let (second, asked_second) = slow_target(Duration::from_secs(5)).await;
    let (one, _two) = twins_of(&cluster, first, second).await;
    let asked = || asked_first.load(Ordering::Relaxed) + asked_second.load(Ordering::Relaxed);
    let mut expected = 0;
    for method in ["GET", "POST"] {
        // Two with a link of their own, and one without.
        let answers = tokio::join!(
            cluster.ask(0, &one.host, method),
            cluster.ask(1, &one.host, method),
            cluster.ask(2, &one.host, method)
        );
        for answer in [answers.0, answers.1, answers.2] {
            assert_eq!((answer.status, answer.body.as_str()), (200, "slow"), "{method}: {answer:?}");
        }
        expected += 3;
        assert_eq!(asked(), expected, "{method}");
    }
}

#[tokio::test]
async fn a_client_without_a_twin_that_stands_still_for_a_moment_is_waited_for() {
    let cluster = Cluster::start(2).await;
    let target = http_target("hello").await;
    let client = Client::start(cluster.client_config("a.yaml", 0, &format!("- target: http://{target}\n"))).await;
    for node in [0, 1] {
        until("the client", || cluster.get(node, &client.host), |answer| answer.body == "hello").await;
    }
    // Longer than a link's patience, shorter than it takes until one is given up.
    client.stand_still(Duration::from_millis(600));
    let answers = tokio::join!(cluster.get(0, &client.host), cluster.get(1, &client.host));
    for answer in [answers.0, answers.1] {
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello"), "{answer:?}");
    }
}
