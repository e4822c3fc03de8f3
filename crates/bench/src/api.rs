//! The simulated API, in a process of its own, and what it has seen.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

use super::child::Child;
use crate::simulator::{Call, Summary};

/// How often it is asked whether something has come true. Each look costs the machine that is measured.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How many calls are listed at once.
const PAGE: u64 = 10_000;

/// The API.
#[derive(Debug)]
pub(super) struct Api {
    process: Child,
    client: Client<HttpConnector, Empty<Bytes>>,
    pub(super) url: String,
}

impl Api {
    /// Starts it. Without a limit it takes all it can.
    pub(super) async fn start(limit: Option<u32>, latency: Duration) -> anyhow::Result<Self> {
        let limit = limit.map_or_else(|| "none".into(), |limit| limit.to_string());
        let latency = humantime::format_duration(latency).to_string();
        let mut process = Child::start(
            "simulated API",
            &[
                "simulate",
                "--listen",
                "127.0.0.1:0",
                "--limit",
                &limit,
                "--latency",
                &latency,
            ],
            &[],
        )?;
        let url = process.says("simulated API").await?;
        Ok(Self {
            process,
            client: Client::builder(TokioExecutor::new()).build_http(),
            url,
        })
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.process.stop().await
    }

    /// Its totals.
    pub(super) async fn summary(&self) -> anyhow::Result<Summary> {
        self.get("ledger").await
    }

    /// The calls after this one, in the order of their arrival.
    pub(super) async fn calls_after(&self, seq: u64, limit: u64) -> anyhow::Result<Vec<Call>> {
        self.get(&format!("calls?after={seq}&limit={limit}")).await
    }

    /// All calls.
    pub(super) async fn all_calls(&self) -> anyhow::Result<Vec<Call>> {
        let mut calls: Vec<Call> = Vec::new();
        loop {
            let after = calls.last().map_or(0, |call| call.seq);
            let page = self.calls_after(after, PAGE).await?;
            if page.is_empty() {
                return Ok(calls);
            }
            calls.extend(page);
        }
    }

    /// Waits until so many calls were made.
    ///
    /// # Errors
    /// Where nothing happens for `patience`.
    pub(super) async fn until_calls(&self, calls: u64, patience: Duration) -> anyhow::Result<()> {
        let mut last = (0, Instant::now());
        loop {
            let made = self.summary().await?.calls;
            if made >= calls {
                return Ok(());
            }
            if made > last.0 {
                last = (made, Instant::now());
            }
            ensure!(
                last.1.elapsed() < patience,
                "{made} of {calls} calls were made, and no other for {}",
                humantime::format_duration(patience)
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Calls a second from one call to another, by their places in the order of arrival.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(super) async fn rate_between(&self, first: u64, last: u64) -> anyhow::Result<f64> {
        let at_us = async |seq: u64| {
            let calls = self.calls_after(seq - 1, 1).await?;
            let call = calls.first().filter(|call| call.seq == seq);
            let call = call.context("the call is not kept any more")?;
            anyhow::Ok(call.at_us)
        };
        let us = at_us(last).await? - at_us(first).await?;
        Ok((last - first) as f64 * 1e6 / us as f64)
    }

    async fn get<T: DeserializeOwned>(&self, what: &str) -> anyhow::Result<T> {
        let request = Request::get(format!("{}/_simulator/{what}", self.url)).body(Empty::new())?;
        let answer = self.client.request(request).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }
}
