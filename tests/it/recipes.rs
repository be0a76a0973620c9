//! System R: three backends publish to one Redis, every browser hears of every change. A config
//! file, no code.

use std::path::Path;

use serde_json::json;
use sluice::settings::Settings;

use crate::support::{Redis, TestGateway};

#[tokio::test]
async fn recipes_run_from_their_config_file_alone() {
    let redis = Redis::start().await;
    let environment = [("SLUICE__REDIS__URL".to_owned(), redis.url())];
    let settings = Settings::load(Some(Path::new("config/recipes.toml")), environment).unwrap();
    let gateway = TestGateway::start_from(settings).await;
    gateway.ready().await;

    let mut all = gateway.open("/api/stream?channel=recipe:*&channel=blog:*").await;
    let mut one = gateway.open("/api/stream?channel=recipe:updated").await;
    redis.cli(&[
        "PUBLISH",
        "recipe:created",
        r#"{"recipeId":"r1","recipe":{"title":"Soup"},"authorId":"u1"}"#,
    ]);
    redis.cli(&["PUBLISH", "comment:created", r#"{"commentId":"c1"}"#]);
    redis.cli(&["PUBLISH", "recipe:updated", r#"{"recipeId":"r1"}"#]);
    redis.cli(&["PUBLISH", "blog:deleted", r#"{"blogId":"b1"}"#]);

    let created = all.data().await;
    assert_eq!(created["channel"], "recipe:created");
    assert_eq!(created["data"]["recipe"], json!({"title": "Soup"}));
    assert!(created["timestamp"].is_u64());
    assert_eq!(all.data().await["channel"], "recipe:updated");
    assert_eq!(all.data().await["channel"], "blog:deleted");
    assert_eq!(one.data().await["data"], json!({"recipeId": "r1"}));

    // A notification is for one user; nobody hears of everybody's.
    for channel in ["notification:created", "notification:*", "*"] {
        let refused = gateway.open(&format!("/api/stream?channel={channel}")).await.rest().await;
        assert_eq!(refused[0].name, "error", "{channel}");
    }
    let health = gateway.json("/health").await;
    assert_eq!((&health["status"], &health["role"]), (&json!("healthy"), &json!("pubsub-server")));
    assert!(health["connectedClients"].is_u64());
}
