//! The client against a socket: a server that answers as services do on good and bad days.
//!
//! Owns: the client's bounds and errors. Must not: leave this machine.

use std::convert::Infallible;
use std::net::SocketAddr;

use cocoon_attest::collateral::{Sources, reachable};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;

const LIMIT: usize = 1_000;

/// What the server does under each path.
async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let mut response = Response::new(String::new());
    let mut header = |name: &'static str, value: &'static str| {
        let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
        response.headers_mut().insert(name, value);
    };
    let (status, body) = match request.uri().path() {
        "/good" | "/tdx/certification/v4/qe/identity" => {
            header("tcb-info-issuer-chain", "a%0Ab");
            (200, "document".to_owned())
        }
        "/limit" => (200, "x".repeat(LIMIT)),
        "/long" => (200, "x".repeat(LIMIT + 1)),
        "/busy" => {
            header("retry-after", "90");
            (429, "patience".to_owned())
        }
        "/elsewhere" => {
            header("location", "/good");
            (302, String::new())
        }
        "/slow" => std::future::pending().await,
        _ => (404, String::new()),
    };
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.body_mut() = body;
    Ok(response)
}

/// A server on this machine, until the test ends.
async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                let _ = http1::Builder::new().serve_connection(io, service_fn(answer)).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn answers_come_whole_with_their_headers() {
    let address = serve().await;
    let client = Client::new().unwrap();
    let good = client.get(&format!("http://{address}/good"), LIMIT).await.unwrap();
    assert_eq!((good.status, good.body.as_slice()), (200, &b"document"[..]));
    let chain = ("tcb-info-issuer-chain".to_owned(), "a%0Ab".to_owned());
    assert!(good.headers.contains(&chain), "{:?}", good.headers);
    let busy = client.get(&format!("http://{address}/busy"), LIMIT).await.unwrap();
    assert_eq!(busy.status, 429);
    assert!(busy.headers.contains(&("retry-after".to_owned(), "90".to_owned())));
    let missing = client.get(&format!("http://{address}/missing"), LIMIT).await.unwrap();
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_a_way() {
    let address = serve().await;
    let client = Client::new().unwrap();
    let elsewhere = client.get(&format!("http://{address}/elsewhere"), LIMIT).await.unwrap();
    assert_eq!((elsewhere.status, elsewhere.body.len()), (302, 0));
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_not_read_to_its_end() {
    let address = serve().await;
    let client = Client::new().unwrap();
    let at = client.get(&format!("http://{address}/limit"), LIMIT).await.unwrap();
    assert_eq!(at.body.len(), LIMIT);
    let beyond = client.get(&format!("http://{address}/long"), LIMIT).await;
    assert_eq!(beyond, Err(HttpError::TooLong { limit: LIMIT }));
}

#[tokio::test]
async fn a_service_that_is_slow_or_away_is_said_to_be() {
    let address = serve().await;
    let hasty = Client::with_timeout(Duration::from_millis(50)).unwrap();
    let slow = hasty.get(&format!("http://{address}/slow"), LIMIT).await;
    assert_eq!(slow, Err(HttpError::TimedOut));

    // Bound and dropped: nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    match Client::new().unwrap().get(&format!("http://{gone}/secret"), LIMIT).await {
        Err(HttpError::Unreachable { reason }) => assert!(!reason.contains("secret"), "{reason}"),
        other => panic!("{other:?}"),
    }

    // A server that hangs up within the body.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 16];
        stream.read_exact(&mut head).await.unwrap();
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
        stream.write_all(cut).await.unwrap();
    };
    let client = Client::new().unwrap();
    let url = format!("http://{address}/");
    let (cut, ()) = tokio::join!(client.get(&url, LIMIT), server);
    assert!(matches!(cut, Err(HttpError::Unreachable { .. })), "{cut:?}");
}

#[tokio::test]
async fn services_are_tried_one_by_one() {
    let base = format!("http://{}", serve().await);
    let sources = Sources { pcs: base.clone(), kds: base };
    let [(intel, answers), (amd, refuses)] = reachable(&Client::new().unwrap(), &sources).await;
    assert_eq!((intel, answers), ("Intel's PCS", Ok(())));
    assert_eq!(amd, "AMD's KDS");
    assert!(refuses.unwrap_err().to_string().contains("404"));
}
