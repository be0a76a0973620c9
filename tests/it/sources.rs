//! One suite over every source, and what only Redis can do.

use serde_json::json;

use crate::support::{Redis, TestGateway, wait_for};

/// A gateway on each source, and what has to live as long as it.
async fn gateways() -> Vec<(&'static str, TestGateway, Option<Redis>)> {
    let redis = Redis::start().await;
    let on_redis = TestGateway::start_with(|settings| settings.redis.url = redis.url()).await;
    wait_for("redis source", async || {
        on_redis.get("/readyz").send().await.unwrap().status() == 200
    })
    .await;
    vec![("embedded", TestGateway::start().await, None), ("redis", on_redis, Some(redis))]
}

#[tokio::test]
async fn what_is_published_comes_back_once_and_in_order() {
    for (source, gateway, _redis) in gateways().await {
        let mut one =
            gateway.open("/api/stream?channel=alerts:u&channel=any:7&envelope=false").await;
        for n in 0..100 {
            let channel = if n % 2 == 0 { "alerts:u" } else { "any:7" };
            gateway.publish(channel, &json!({"n": n})).await;
        }
        for n in 0..100 {
            assert_eq!(one.data().await, json!({"n": n}), "{source}");
        }
    }
}
