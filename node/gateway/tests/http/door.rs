//! Who may come in, and the paths that lead nowhere.

use cocoon_gateway::{ApiKey, Options, ServeError, serve};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::fake::{Fake, Script};
use crate::{Server, chat_body};

async fn keyed() -> Server {
    let keys = vec![ApiKey::from_secret("sk-one"), ApiKey::from_secret("sk-two")];
    Server::start_with(Script::Echo, Options { keys, ..Options::default() }).await
}

#[tokio::test]
async fn with_keys_only_their_holders_are_served() {
    let server = keyed().await;
    for (path, key, status) in [
        ("/v1/models", None, 401),
        ("/v1/models", Some("sk-onf"), 401),
        ("/v1/models", Some("sk-one"), 200),
        ("/v1/models", Some("sk-two"), 200),
        ("/nothing/here", None, 401),
        ("/nothing/here", Some("sk-one"), 404),
    ] {
        let mut request = server.client.get(server.url(path));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let answer = server.send(request).await;
        assert_eq!(answer.status, status, "{path} {key:?}");
        if status == 401 {
            assert_eq!(answer.error().1, "invalid_api_key");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert_eq!(answer.header("x-should-retry"), "false");
        }
    }
    let chat = server.client.post(server.url("/v1/chat/completions")).json(&chat_body(json!({})));
    assert_eq!(server.send(chat).await.status, 401);
    assert_eq!(server.fake.count(), 0);
}

#[tokio::test]
async fn health_tells_strangers_one_word() {
    let server = keyed().await;
    assert_eq!(server.get("/health").await.json(), json!({ "status": "ok" }));
    let request = server.client.get(server.url("/health")).bearer_auth("sk-one");
    assert_eq!(server.send(request).await.json()["peers"], 5);
}

#[tokio::test]
async fn without_a_key_a_web_page_cannot_come_in_under_its_own_name() {
    let allowed_hosts = vec!["gateway.lan".to_owned()];
    let options = Options { allowed_hosts, ..Options::default() };
    let server = Server::start_with(Script::Echo, options).await;
    for (host, status) in
        [("evil.example", 403), ("localhost:80", 200), ("[::1]", 200), ("gateway.lan:8080", 200)]
    {
        let request = server.client.get(server.url("/v1/models")).header("host", host);
        assert_eq!(server.send(request).await.status, status, "{host}");
    }
    // A key proves more than a name does.
    let server = keyed().await;
    let request = server.client.get(server.url("/v1/models")).header("host", "evil.example");
    assert_eq!(server.send(request.bearer_auth("sk-one")).await.status, 200);
}

#[tokio::test]
async fn a_body_that_a_foreign_page_could_send_is_refused() {
    let server = Server::start(Script::Echo).await;
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let request = server.client.post(server.url("/v1/chat/completions"));
        let mut request = request.body(chat_body(json!({})).to_string());
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let answer = server.send(request).await;
        assert_eq!(answer.error(), (415, "unsupported_media_type".to_owned(), None));
    }
    let request = server.client.post(server.url("/v1/chat/completions"));
    let request = request.header("content-type", "Application/JSON; charset=utf-8");
    let answer = server.send(request.body(chat_body(json!({})).to_string())).await;
    assert_eq!(answer.status, 200);
    // The question that a browser asks first gets no permission.
    let options = server.client.request(reqwest::Method::OPTIONS, server.url("/v1/models"));
    let answer = server.send(options.header("origin", "https://evil.example")).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn a_gateway_without_a_key_does_not_start_beyond_loopback() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let jobs = std::sync::Arc::new(Fake::new(Script::Echo));
    let ended = serve(listener, jobs, Options::default(), CancellationToken::new()).await;
    assert!(matches!(ended, Err(ServeError::Exposed(_))));
}

#[tokio::test]
async fn paths_and_methods_that_are_not_served_say_so_in_openais_shape() {
    let server = Server::start(Script::Echo).await;
    for path in ["/", "/v1/embeddings", "/v1/chat/completions/", "/v2/models", "/%00"] {
        let answer = server.get(path).await;
        assert_eq!(answer.error(), (404, "unknown_url".to_owned(), None), "{path}");
    }
    for (path, allow) in [("/v1/chat/completions", "POST"), ("/v1/completions", "POST")] {
        let answer = server.get(path).await;
        assert_eq!(answer.error(), (405, "method_not_allowed".to_owned(), None));
        assert_eq!(answer.header("allow"), allow);
    }
    let answer = server.post("/v1/models", &json!({})).await;
    assert_eq!(answer.error(), (405, "method_not_allowed".to_owned(), None));
}
