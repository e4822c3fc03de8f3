//! Orphaned claims: claims whose answer never arrived. The database may have carried them out. At the end of the lease their
//! messages would count as attempted, so the worker releases them by their `claim_id` when the database answers again.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::worker::lane::Lane;

/// Messages of older claims are due again when their leases end.
const MAX_CLAIMS: usize = 32;
/// The network may deliver a claim late, so the worker repeats the release until the claim's lease has ended.
const RELEASE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct OrphanedClaims {
    claims: Vec<(Uuid, Instant)>,
    next_release: Option<Instant>,
}

impl OrphanedClaims {
    pub(super) fn add(&mut self, id: Uuid, lease: Duration) {
        self.claims.truncate(MAX_CLAIMS - 1);
        self.claims.insert(0, (id, Instant::now() + lease));
        self.next_release = None;
    }

    pub(super) async fn release(&mut self, lane: &Lane) {
        let now = Instant::now();
        if self.claims.is_empty() || self.next_release.is_some_and(|at| now < at) {
            return;
        }
        let ids: Vec<Uuid> = self.claims.iter().map(|(id, _)| *id).collect();
        if let Ok(found) = lane.shared.outbox.release(&lane.app, &ids).await {
            if !found.is_empty() {
                tracing::info!(
                    event = "claim_released",
                    app = lane.app,
                    claims = found.len(),
                    "released a claim whose answer was lost: none of its messages was sent"
                );
                lane.wakeup.notify_one();
            }
            self.claims.retain(|(_, lease_ends)| *lease_ends > now);
        }
        self.next_release = Some(Instant::now() + RELEASE_EVERY);
    }
}
