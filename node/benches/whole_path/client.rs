//! The client of the comparison: asks, streams, and takes the times.
//!
//! Owns: when a chunk counts as the first, and the check that an answer is whole.
//! Must not: know which arm it talks to.

use std::time::{Duration, Instant};

/// How long the first success may take: finding peers, deploying a vault, attesting.
const PATIENCE: Duration = Duration::from_secs(60);

/// One streamed answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// When the request was sent.
    pub(crate) sent: Instant,
    /// From sending the request to the first chunk with text.
    pub(crate) first: Duration,
    /// To the end of the stream.
    pub(crate) whole: Duration,
    /// Chunks with text.
    pub(crate) chunks: usize,
}

/// A client with warm connections to one address.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    body: String,
    tokens: usize,
}

impl Client {
    pub(crate) fn new(address: &str, tokens: usize) -> Self {
        let prompt = vec!["word"; tokens].join(" ");
        let body = serde_json::json!({
            "model": "echo",
            "stream": true,
            "max_tokens": tokens,
            "messages": [{ "role": "user", "content": prompt }],
        });
        Self {
            http: reqwest::Client::builder().tcp_nodelay(true).build().unwrap(),
            url: format!("http://{address}/v1/chat/completions"),
            body: body.to_string(),
            tokens,
        }
    }

    /// This many answers, so many at a time.
    pub(crate) async fn ask(&self, requests: usize, parallel: usize) -> Vec<Answer> {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..parallel {
            let client = self.clone();
            tasks.spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..requests / parallel {
                    answers.push(client.once().await.expect("a warm path answers"));
                }
                answers
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }

    /// Asks until it is answered; the answer.
    pub(crate) async fn first_success(&self, pause: Duration) -> Answer {
        let begin = Instant::now();
        loop {
            match self.once().await {
                Ok(answer) => return answer,
                Err(reason) => assert!(begin.elapsed() < PATIENCE, "no answer: {reason}"),
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn once(&self) -> Result<Answer, String> {
        let sent = Instant::now();
        let request = self.http.post(&self.url).header("content-type", "application/json");
        let response = request.body(self.body.clone()).send().await;
        let mut response = response.map_err(|error| format!("{error:?}"))?;
        if !response.status().is_success() {
            return Err(response.text().await.unwrap_or_default());
        }
        let (mut text, mut first) = (String::new(), None);
        while let Some(part) = response.chunk().await.map_err(|error| format!("{error:?}"))? {
            text.push_str(std::str::from_utf8(&part).map_err(|error| error.to_string())?);
            if first.is_none() && text.contains(r#""content":"w"#) {
                first = Some(sent.elapsed());
            }
        }
        let whole = sent.elapsed();
        let words = text.matches("word").count();
        if words != self.tokens || !text.ends_with("data: [DONE]\n\n") {
            return Err(format!("{words} words of {}: {text}", self.tokens));
        }
        let opening = text.matches(r#""content":"""#).count();
        let chunks = text.matches(r#""content":""#).count() - opening;
        Ok(Answer { sent, first: first.ok_or("no text")?, whole, chunks })
    }
}
