//! The hosts of one app's API: connections to the one that serves, and the search for the first one while another
//! serves. [`HostChoice`] decides which host that is.

use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::connection_pool::{Connection, ConnectionPool};
use super::host_choice::{Change, HostChoice, SearchTicket};
use super::{BaseUrl, CallFailure, ClientSettings, Response};
use crate::connector::https_connector;
use crate::proxy::{InvalidProxy, Proxy};
use crate::telemetry::log_throttle::LogThrottle;

/// The result of a connection to one host.
#[derive(Debug)]
pub(crate) struct TriedHost {
    pub(crate) base_url: String,
    /// The proxy on the way to the host, if there is one.
    pub(crate) proxy: Option<String>,
    /// How long the connection took.
    pub(crate) connected: Result<Duration, CallFailure>,
}

#[derive(Debug)]
pub(super) struct Hosts {
    app_id: String,
    pools: Vec<Arc<ConnectionPool>>,
    /// Notifies the attempts that wait for a connection when another host serves.
    choice: watch::Sender<HostChoice>,
    /// Hosts that all fail now and then are left several times a second.
    log_throttle: LogThrottle,
}

impl Hosts {
    pub(super) fn new(
        settings: &ClientSettings,
        tls: rustls::ClientConfig,
    ) -> Result<Arc<Self>, InvalidProxy> {
        let connector = https_connector(tls, settings.proxies.clone(), settings.connect_timeout);
        let pool = |(index, base_url): (usize, &BaseUrl)| {
            let base_url = base_url.clone();
            let pool = ConnectionPool::new(index, base_url, connector.clone(), settings)?;
            Ok(Arc::new(pool))
        };
        let pools = settings.base_urls.iter().enumerate().map(pool);
        Ok(Arc::new(Self {
            app_id: settings.app_id.clone(),
            pools: pools.collect::<Result<_, InvalidProxy>>()?,
            choice: watch::Sender::new(HostChoice::new(settings.base_urls.len())),
            log_throttle: LogThrottle::default(),
        }))
    }

    /// The host that serves. There is one: settings without a host are refused.
    pub(super) fn serving(&self) -> &ConnectionPool {
        &self.pools[self.choice.borrow().serving()]
    }

    /// A connection that is ready: to the first host if it is on trial, else to the host that serves, else to the next
    /// one that can be connected.
    ///
    /// # Errors
    /// [`CallFailure::NotSent`] where no host can be connected in time.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Connection, CallFailure> {
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
                // Another attempt has found that the host can't be connected: without this, each of those that wait
                // for the same host would wait for a timeout of its own.
                () = self.until_other_serves([index, serving]) => continue,
            };
            match connected {
                Ok(connection) => {
                    if let Some(failure) = &first_failure {
                        self.step(failure, |choice| choice.connected_elsewhere(serving, index));
                    }
                    return Ok(connection);
                }
                Err(failure) => {
                    first_failure.get_or_insert(failure);
                }
            }
        }
        Err(first_failure.unwrap_or_else(|| {
            CallFailure::NotSent("each host was left while it was being connected".into())
        }))
    }

    /// A connection to the first host, for the one attempt that finds out how it answers.
    async fn trial_connection(self: &Arc<Self>) -> Option<Connection> {
        if !self.choice.borrow().offers_trial() {
            return None;
        }
        let mut is_taken = false;
        self.choice.send_if_modified(|choice| {
            is_taken = choice.take_trial();
            false
        });
        if !is_taken {
            return None;
        }
        let trial = Trial(Some(Arc::clone(self)));
        match self.pools[0].get().await {
            Ok(mut connection) => {
                connection.trial = Some(trial);
                Some(connection)
            }
            Err(failure) => {
                trial.end(&failure, HostChoice::trial_unconnected);
                None
            }
        }
    }

    async fn until_other_serves(&self, hosts: [usize; 2]) {
        let mut choices = self.choice.subscribe();
        // The sender is `self`: the wait can't fail.
        choices
            .wait_for(|choice| !hosts.contains(&choice.serving()))
            .await
            .ok();
    }

    /// Takes in how a call ended.
    pub(super) fn observe(
        self: &Arc<Self>,
        host: usize,
        trial: Option<Trial>,
        call: &Result<Response, CallFailure>,
    ) {
        let status = call.as_ref().ok().map(|response| response.status);
        let why = status.map_or_else(String::new, |status| format!("it answered HTTP {status}"));
        match (trial, status) {
            (Some(trial), status) => trial.end(&why, |choice| choice.trial_ended(status)),
            (None, Some(status)) => self.step(&why, |choice| {
                choice.responded(host, status, |other| self.pools[other].lately_failed())
            }),
            // Without a response nobody knows whether the host or the API behind it is slow.
            (None, None) => {}
        }
    }

    /// Connects to each host in the order of the list, and measures how long that takes.
    pub(super) async fn try_all(&self) -> Vec<TriedHost> {
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

    fn step(self: &Arc<Self>, why: &dyn Display, step: impl FnOnce(&mut HostChoice) -> Change) {
        let mut change = Change::None;
        self.choice.send_if_modified(|choice| {
            change = step(choice);
            matches!(change, Change::Moved { .. } | Change::Returned)
        });
        match change {
            Change::None => {}
            Change::Moved { from, to, search } => {
                self.log_moved(from, to, why);
                if let Some(ticket) = search {
                    tokio::spawn(search_first_host(Arc::downgrade(self), ticket));
                }
            }
            Change::Returned => tracing::info!(
                event = "host_restored",
                app_id = self.app_id,
                to = %self.pools[0].base_url,
                "calling the first host of the API again"
            ),
            Change::SearchAgain(ticket) => {
                tokio::spawn(search_first_host(Arc::downgrade(self), ticket));
            }
        }
    }

    fn log_moved(&self, from: usize, to: usize, why: &dyn Display) {
        let Some(suppressed) = self.log_throttle.admit() else {
            return;
        };
        tracing::warn!(
            event = "host_changed",
            app_id = self.app_id,
            from = %self.pools[from].base_url,
            to = %self.pools[to].base_url,
            %why,
            suppressed,
            "calling another host of the API"
        );
    }
}

/// The right to make the one attempt that tries the first host. Dropped before the call, it goes to the next attempt.
#[derive(Debug)]
pub(super) struct Trial(Option<Arc<Hosts>>);

impl Trial {
    fn end(mut self, why: &dyn Display, step: impl FnOnce(&mut HostChoice) -> Change) {
        if let Some(hosts) = self.0.take() {
            hosts.step(why, step);
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(hosts) = self.0.take() {
            hosts.choice.send_if_modified(|choice| {
                choice.trial_unused();
                false
            });
        }
    }
}

/// Connects to the first host from time to time, until one connection is made.
async fn search_first_host(hosts: Weak<Hosts>, ticket: SearchTicket) {
    loop {
        tokio::time::sleep(ticket.wait).await;
        let Some(hosts) = hosts.upgrade() else {
            return;
        };
        if !hosts.choice.borrow().is_searching(ticket) {
            return;
        }
        if let Ok(connection) = hosts.pools[0].get().await {
            connection.put_back();
            hosts.step(&"", |choice| choice.first_host_connected(ticket));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use tokio::net::TcpListener;

    use super::*;
    use crate::proxy::ProxyVariables;
    use crate::secret::SecretSource;
    use crate::signaling::{Credentials, EchoFilter, tls_config};

    const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

    fn hosts(urls: &[String]) -> Arc<Hosts> {
        let secret = || SecretSource::value("hush".to_owned());
        let settings = ClientSettings {
            base_urls: urls
                .iter()
                .map(|url| BaseUrl::parse(url).expect("a URL"))
                .collect(),
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
        Hosts::new(&settings, tls_config(None).expect("TLS")).expect("hosts")
    }

    /// A host that takes connections and never says a word: a TLS handshake with it hangs.
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
        let hosts = hosts(&[format!("http://{alive}"), format!("https://{dead}")]);
        let fail = || {
            for _ in 0..3 {
                hosts.observe(0, None, &Ok(response(502)));
            }
        };
        fail();
        assert_eq!(hosts.serving().index, 1);
        let connection = hosts.connection().await.expect("a connection");
        assert_eq!((connection.host_index(), hosts.serving().index), (0, 0));
        fail();
        assert_eq!(hosts.serving().index, 0);
    }

    #[tokio::test]
    async fn attempts_that_wait_for_a_dead_host_go_on_when_the_first_of_them_does() {
        let ((_dead, dead), (_alive, alive)) = (listener().await, listener().await);
        let hosts = hosts(&[format!("https://{dead}"), format!("http://{alive}")]);
        let begun = Instant::now();
        let connect = async |after: Duration| {
            tokio::time::sleep(after).await;
            let connection = hosts.connection().await.expect("a connection");
            (connection.host_index(), begun.elapsed())
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
        let hosts = hosts(&[format!("http://{first}"), format!("http://{second}")]);
        hosts.choice.send_modify(|choice| {
            let mut respond = || choice.responded(0, 502, |_| false);
            let _ = (respond(), respond());
            let Change::Moved {
                search: Some(ticket),
                ..
            } = respond()
            else {
                panic!("{choice:?}");
            };
            let _ = choice.first_host_connected(ticket);
        });
        let mut trial = hosts.connection().await.expect("a connection");
        assert_eq!(trial.host_index(), 0);
        let meanwhile = hosts.connection().await.expect("a connection");
        assert_eq!(meanwhile.host_index(), 1);
        trial.put_back();

        trial = hosts.connection().await.expect("a connection");
        assert_eq!(trial.host_index(), 0);
        hosts.observe(0, trial.trial.take(), &Ok(response(200)));
        assert_eq!(hosts.serving().index, 0);
    }
}
