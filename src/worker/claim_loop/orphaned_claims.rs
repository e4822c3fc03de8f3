//! Orphaned claims: claims whose answer never arrived. The database may have carried them out, and their messages would wait
//! for the end of the lease. So the worker releases them by their `claim_id` when the database answers again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::error_text::database_error_text;
use crate::worker::lane::Lane;

/// Messages of older claims are due again when their leases end.
const MAX_CLAIMS: usize = 32;
/// A statement that a network has delayed may reach the server late, so the worker releases a claim several times.
const RELEASE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct OrphanedClaims {
    claims: VecDeque<OrphanedClaim>,
    next_release: Instant,
}

#[derive(Debug)]
struct OrphanedClaim {
    id: Uuid,
    lease: Duration,
    /// One lease after the first release. The claim has no messages any more.
    expired_at: Option<Instant>,
}

impl OrphanedClaims {
    pub(super) fn new() -> Self {
        Self {
            claims: VecDeque::new(),
            next_release: Instant::now(),
        }
    }

    pub(super) fn add(&mut self, id: Uuid, lease: Duration) {
        if self.claims.len() == MAX_CLAIMS {
            self.claims.pop_front();
        }
        self.claims.push_back(OrphanedClaim {
            id,
            lease,
            expired_at: None,
        });
        self.next_release = Instant::now();
    }

    pub(super) async fn release(&mut self, lane: &Lane) {
        let now = Instant::now();
        if self.claims.is_empty() || now < self.next_release {
            return;
        }
        for claim in &mut self.claims {
            claim.expired_at.get_or_insert(now + claim.lease);
        }
        let ids: Vec<Uuid> = self.claims.iter().map(|claim| claim.id).collect();
        match lane.shared.outbox.release(&lane.app, &ids).await {
            Ok(found) => {
                if !found.is_empty() {
                    tracing::info!(
                        event = "claim_released",
                        app = lane.app,
                        claims = found.len(),
                        "released a claim whose answer was lost: none of its messages was sent"
                    );
                    lane.wake();
                }
                self.claims.retain(|claim| claim.expired_at > Some(now));
            }
            Err(error) => tracing::debug!(
                event = "claim_release_failed",
                app = lane.app,
                error = database_error_text(&error),
                "claims without an answer can't be released"
            ),
        }
        self.next_release = Instant::now() + RELEASE_EVERY;
    }
}
