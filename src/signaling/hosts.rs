//! Chooses the host of each call: the host that serves, or the first one on trial. [`HostChoice`] decides.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection_pool::{Connection, ConnectionPool};
use super::host_choice::{Change, HostChoice};
use super::{CallFailure, Client, Response};
use crate::proxy::Proxy;

const TRIAL_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The result of a connection to one host.
#[derive(Debug)]
pub(crate) struct TriedHost {
    pub(crate) base_url: String,
    pub(crate) proxy: Option<String>,
    /// The time that the connection took.
    pub(crate) connected: Result<Duration, CallFailure>,
}

impl Client {
    /// The host that the worker calls at present.
    pub(crate) fn serving(&self) -> &ConnectionPool {
        &self.pools[self.choice.borrow().serving()]
    }

    /// A connection that is ready: to the first host if it is on trial, else to the host that serves, else to the next one
    /// that can be connected.
    ///
    /// # Errors
    /// [`CallFailure::NotSent`] if no host can be connected in time.
    pub(crate) async fn connection(self: &Arc<Self>) -> Result<Connection, CallFailure> {
        if let Some(connection) = self.trial_connection().await {
            return Ok(connection);
        }
        let mut untried: Vec<usize> = (0..self.pools.len()).collect();
        let mut first_failure = None;
        while !untried.is_empty() {
            let serving = self.choice.borrow().serving();
            let next = untried.iter().position(|index| *index >= serving);
            let index = untried.remove(next.unwrap_or(0));
            let connected = tokio::select! {
                biased;
                connected = self.pools[index].get() => connected,
                // Another attempt has found that the host can't be connected. Otherwise each attempt that waits for this
                // host would wait for a timeout of its own.
                () = self.until_other_serves([index, serving]) => continue,
            };
            match connected {
                Ok(connection) => {
                    if let Some(failure) = &first_failure {
                        self.step(failure, |choice| {
                            choice.connected_elsewhere(serving, index, Instant::now())
                        });
                    }
                    return Ok(connection);
                }
                Err(failure) => {
                    first_failure.get_or_insert(failure);
                }
            }
        }
        Err(first_failure.unwrap_or_else(|| {
            CallFailure::NotSent("the worker left each host while it connected it".into())
        }))
    }

    /// A connection to the first host, for the one attempt that finds out whether that host serves again.
    async fn trial_connection(self: &Arc<Self>) -> Option<Connection> {
        if !self.update(|choice| choice.take_trial(Instant::now())) {
            return None;
        }
        let trial = Trial(Arc::clone(self));
        // Behind a firewall that drops packets, the attempt would miss its slot by the connect timeout.
        let connected = tokio::time::timeout(TRIAL_CONNECT_TIMEOUT, self.pools[0].get()).await;
        let Ok(Ok(mut connection)) = connected else {
            self.update(|choice| choice.trial_unconnected(Instant::now()));
            return None;
        };
        connection.trial = Some(trial);
        Some(connection)
    }

    async fn until_other_serves(&self, hosts: [usize; 2]) {
        let mut choices = self.choice.subscribe();
        // The sender is `self`, so the wait can't fail.
        let other_serves = |choice: &HostChoice| !hosts.contains(&choice.serving());
        choices.wait_for(other_serves).await.ok();
    }

    /// Takes in how a call ended.
    pub(super) fn observe(
        &self,
        host: usize,
        trial: Option<Trial>,
        call: &Result<Response, CallFailure>,
    ) {
        let now = Instant::now();
        let status = call.as_ref().ok().map(|response| response.status);
        let why = status.map_or_else(String::new, |status| format!("it answered HTTP {status}"));
        match (trial, status) {
            (Some(_), _) => self.step(&why, |choice| choice.trial_ended(status, now)),
            (None, Some(status)) => self.step(&why, |choice| {
                let failed_to_connect = |other: usize| self.pools[other].lately_failed();
                choice.responded(host, status, now, failed_to_connect)
            }),
            // Without a response, either the host or the API behind it may be slow.
            (None, None) => {}
        }
    }

    /// Connects each host in the order of the list, and measures the time.
    pub(crate) async fn try_hosts(&self) -> Vec<TriedHost> {
        let mut tried = Vec::with_capacity(self.pools.len());
        for pool in &self.pools {
            let begun = Instant::now();
            let connected = pool.get().await.map(|connection| {
                connection.put_back();
                begun.elapsed()
            });
            tried.push(TriedHost {
                base_url: pool.base_url.to_string(),
                proxy: pool.proxy.as_ref().map(Proxy::to_string),
                connected,
            });
        }
        tried
    }

    /// Changes the choice without waking attempts that wait for a connection.
    fn update<T>(&self, change: impl FnOnce(&mut HostChoice) -> T) -> T {
        let mut changed = None;
        self.choice.send_if_modified(|choice| {
            changed = Some(change(choice));
            false
        });
        changed.expect("send_if_modified calls its closure")
    }

    /// Changes the choice, logs another host, and wakes the attempts that wait for a connection to the host before.
    fn step(&self, why: &dyn Display, step: impl FnOnce(&mut HostChoice) -> Change) {
        let mut change = Change::None;
        self.choice.send_if_modified(|choice| {
            change = step(choice);
            change != Change::None
        });
        match change {
            Change::None => {}
            Change::Moved { from, to } => {
                if let Some(suppressed) = self.log_throttle.admit() {
                    tracing::warn!(
                        event = "host_changed",
                        app_id = self.settings.app_id,
                        from = %self.pools[from].base_url,
                        to = %self.pools[to].base_url,
                        %why,
                        suppressed,
                        "calling another host of the API"
                    );
                }
            }
            Change::Returned => tracing::info!(
                event = "host_restored",
                app_id = self.settings.app_id,
                to = %self.pools[0].base_url,
                "calling the first host of the API again"
            ),
        }
    }
}

/// The right to make the one attempt that tries the first host. If the attempt ends before its call, the next attempt gets
/// the right.
#[derive(Debug)]
pub(super) struct Trial(Arc<Client>);

impl Drop for Trial {
    fn drop(&mut self) {
        let next_attempt = Duration::ZERO;
        self.0
            .update(|choice| choice.trial_unused(next_attempt, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use tokio::net::TcpListener;

    use super::*;
    use crate::proxy::ProxyVariables;
    use crate::secret::SecretSource;
    use crate::signaling::{BaseUrl, ClientSettings, Credentials, EchoFilter};

    const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

    fn client(urls: &[String]) -> Arc<Client> {
        let secret = || SecretSource::value("hush".to_owned());
        let settings = ClientSettings {
            base_urls: BaseUrl::parse_list(&urls.join(",")).expect("URLs"),
            ca_file: None,
            app_id: "id".into(),
            credentials: Credentials::Basic {
                key: secret(),
                secret: secret(),
            },
            proxies: ProxyVariables::default(),
            connect_timeout: CONNECT_TIMEOUT,
            connection_max_age: CONNECT_TIMEOUT,
            request_timeout: CONNECT_TIMEOUT,
            max_idle_connections: 8,
        };
        Client::new(settings).expect("a client")
    }

    /// A host that accepts connections and never answers, so that a TLS handshake with it hangs.
    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address").to_string();
        (listener, address)
    }

    fn response(status: u16) -> Response {
        Response::read(status, &HeaderMap::new(), Ok(b""), &EchoFilter::default())
    }

    #[tokio::test]
    async fn an_unreachable_alternative_holds_up_attempts_once() {
        let ((_alive, alive), (_dead, dead)) = (listener().await, listener().await);
        let client = client(&[format!("http://{alive}"), format!("https://{dead}")]);
        let fail = || {
            for _ in 0..3 {
                client.observe(0, None, &Ok(response(502)));
            }
        };
        fail();
        assert_eq!(client.serving().index, 1);
        let connection = client.connection().await.expect("a connection");
        assert_eq!((connection.pool.index, client.serving().index), (0, 0));
        fail();
        assert_eq!(client.serving().index, 0);
    }

    #[tokio::test]
    async fn attempts_that_wait_for_a_dead_host_go_on_when_the_first_of_them_does() {
        let ((_dead, dead), (_alive, alive)) = (listener().await, listener().await);
        let client = client(&[format!("https://{dead}"), format!("http://{alive}")]);
        let begun = Instant::now();
        let connect = async |after: Duration| {
            tokio::time::sleep(after).await;
            let connection = client.connection().await.expect("a connection");
            (connection.pool.index, begun.elapsed())
        };
        let (first, second) =
            tokio::join!(connect(Duration::ZERO), connect(CONNECT_TIMEOUT * 3 / 4));
        assert_eq!((first.0, second.0), (1, 1));
        assert!(first.1 >= CONNECT_TIMEOUT);
        let late = second.1.saturating_sub(first.1);
        assert!(late < Duration::from_millis(500), "{late:?} later");
    }

    #[tokio::test]
    async fn a_connection_of_a_trial_that_is_put_back_leaves_the_trial_to_the_next() {
        let ((_first, first), (_second, second)) = (listener().await, listener().await);
        let client = client(&[format!("http://{first}"), format!("http://{second}")]);
        client.update(|choice| {
            let left_at = Instant::now().checked_sub(Duration::from_secs(60));
            let left_at = left_at.expect("a minute ago");
            for _ in 0..3 {
                choice.responded(0, 502, left_at, |_| false);
            }
        });
        let mut trial = client.connection().await.expect("a connection");
        assert_eq!(trial.pool.index, 0);
        let meanwhile = client.connection().await.expect("a connection");
        assert_eq!(meanwhile.pool.index, 1);
        trial.put_back();

        trial = client.connection().await.expect("a connection");
        assert_eq!(trial.pool.index, 0);
        client.observe(0, trial.trial.take(), &Ok(response(200)));
        assert_eq!(client.serving().index, 0);
    }
}
