//! The simulated API as a process, and a client for its ledger.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use simulator::{Call, Summary};

use crate::child_process::{ChildProcess, bench_binary};
use crate::measurements::count;

/// Each request takes processor time from the measured processes.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A measurement fails if no call arrives for so long.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
/// The API lists at most so many calls in a response.
const PAGE: u64 = 10_000;

#[derive(Debug)]
pub(crate) struct Api {
    process: ChildProcess,
    client: Client<HttpConnector, Empty<Bytes>>,
    pub(crate) url: String,
}

impl Api {
    pub(crate) async fn start(limit: Option<u32>, latency: Duration) -> anyhow::Result<Self> {
        let limit = limit.map_or_else(|| "none".into(), |limit| limit.to_string());
        let latency = format!("{}ms", latency.as_millis());
        let arguments = [
            "simulated-api",
            "--listen=127.0.0.1:0",
            "--limit",
            &limit,
            "--latency",
            &latency,
        ];
        let mut process = ChildProcess::start("simulated API", bench_binary()?, &arguments, &[])?;
        let url = process.wait_for_line("simulated API").await?;
        Ok(Self {
            process,
            client: Client::builder(TokioExecutor::new()).build_http(),
            url,
        })
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.process.stop().await
    }

    pub(crate) async fn summary(&self) -> anyhow::Result<Summary> {
        self.get("ledger").await
    }

    async fn calls_after(&self, seq: u64, limit: u64) -> anyhow::Result<Vec<Call>> {
        self.get(&format!("calls?after={seq}&limit={limit}")).await
    }

    pub(crate) async fn all_calls(&self) -> anyhow::Result<Vec<Call>> {
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

    pub(crate) async fn wait_for_calls(&self, calls: u64) -> anyhow::Result<()> {
        let (mut last, mut last_progress) = (0, Instant::now());
        loop {
            let received = self.summary().await?.calls;
            if received >= calls {
                return Ok(());
            }
            if received > last {
                (last, last_progress) = (received, Instant::now());
            }
            ensure!(
                last_progress.elapsed() < PROGRESS_TIMEOUT,
                "the API received {received} of {calls} calls, and none in the last {PROGRESS_TIMEOUT:?}"
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Calls a second between two calls, given by their position in the order of arrival.
    pub(crate) async fn rate_between(&self, first: u64, last: u64) -> anyhow::Result<f64> {
        let at_us = async |seq: u64| {
            let calls = self.calls_after(seq - 1, 1).await?;
            let call = calls.first().filter(|call| call.seq == seq);
            let call = call.with_context(|| format!("the ledger no longer has call {seq}"))?;
            anyhow::Ok(call.at_us)
        };
        let us = at_us(last).await? - at_us(first).await?;
        Ok(count(last - first) * 1e6 / count(us))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = Request::get(format!("{}/_simulator/{path}", self.url)).body(Empty::new())?;
        let response = self.client.request(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }
}
