//! The dashboard of a `worker run` process, on a free port.

use super::database_proxy::DatabaseProxy;
use super::ops_client::{OpsWorker, Response};
use harness::{Worker, World, app_table, assert_contains};

/// A worker's dashboard. Dropping it kills the worker.
pub(super) struct Dashboard {
    pub(super) url: String,
    ops: OpsWorker,
}

/// `worker run` for the app `idle`, which has no messages. Messages of other apps stay as the test inserted them. The
/// overview has a panel for `idle`, and `signaling.lane` a row.
pub(super) fn idle_worker(world: &World) -> Worker {
    let idle = app_table("idle", "");
    world.worker_without_app().file("WORKER_CONFIG", &idle)
}

impl Dashboard {
    /// Starts an idle worker on the world's database.
    pub(super) async fn of(world: &World) -> Self {
        Self::start(idle_worker(world)).await
    }

    /// Starts an idle worker whose connections to the database go through a proxy.
    pub(super) async fn through(proxy: &DatabaseProxy, world: &World) -> Self {
        Self::start(idle_worker(world).env("DATABASE_URL", &proxy.url)).await
    }

    /// Starts an idle worker whose database refuses connections until the returned proxy is opened.
    pub(super) async fn without_database(world: &World) -> (Self, DatabaseProxy) {
        let proxy = DatabaseProxy::closed(world);
        let worker = idle_worker(world).env("DATABASE_URL", &proxy.url);
        (Self::listening(worker).await, proxy)
    }

    /// Starts a worker, and waits until it is ready: by then its lanes have their rows.
    pub(super) async fn start(worker: Worker) -> Self {
        let dashboard = Self::listening(worker).await;
        dashboard.ops.until_ready().await;
        dashboard
    }

    async fn listening(worker: Worker) -> Self {
        let ops = OpsWorker::start(worker).await;
        let url = format!("http://{}", ops.client.0);
        Self { url, ops }
    }

    pub(super) async fn get(&self, path: &str) -> Response {
        self.ops.client.get(path).await
    }

    /// Gets a page that has to exist.
    pub(super) async fn page(&self, path: &str) -> String {
        let page = self.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        page.body
    }

    /// Gets a page that has to contain some parts.
    pub(super) async fn shows(&self, path: &str, parts: &[&str]) -> String {
        let page = self.page(path).await;
        assert_contains(&page, parts);
        page
    }

    /// Posts a form, and returns the path that the response redirects to.
    pub(super) async fn post(&self, path: &str, form: &str) -> String {
        let page = self.try_post(path, form).await;
        assert_eq!(page.status, 303, "{path}: {}", page.body);
        page.header("location").expect("a path").to_owned()
    }

    pub(super) async fn try_post(&self, path: &str, form: &str) -> Response {
        self.ops.client.post(path, &[], form).await
    }
}

/// Counts the pending messages, as workers do from time to time. The count is skipped while a worker counts, and just
/// after, so it is repeated until it happens.
pub(super) async fn count_pending(world: &World) {
    world
        .until_true("select signaling.refresh_queue_counts(interval '0')")
        .await;
}
