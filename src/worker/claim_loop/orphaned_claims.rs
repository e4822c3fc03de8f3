//! Claims whose answers never came. The database may have carried them out: then their rows are this worker's for as
//! long as the lease, and nobody calls them. So they are given back as soon as the database answers again.

use crate::error_text::database_error_text;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::worker::lane::Lane;

/// Most claims to remember. The rows of others are due again when their leases end.
const MOST: usize = 32;
/// How often a claim is looked for: a statement that a network has swallowed may reach the server late.
const RELEASE_EVERY: Duration = Duration::from_secs(1);

/// A lane's claims without an answer.
#[derive(Debug)]
pub(in crate::worker) struct OrphanedClaims {
    claims: VecDeque<Claim>,
    next_release: Instant,
}

#[derive(Debug)]
struct Claim {
    id: Uuid,
    lease: Duration,
    /// When nothing of it can be left: a lease after the database has answered again. It may have carried the claim out
    /// no sooner.
    expired_at: Option<Instant>,
}

impl OrphanedClaims {
    pub(in crate::worker) fn new() -> Self {
        Self {
            claims: VecDeque::new(),
            next_release: Instant::now(),
        }
    }

    pub(in crate::worker) fn add(&mut self, id: Uuid, lease: Duration) {
        if self.claims.len() == MOST {
            self.claims.pop_front();
        }
        self.claims.push_back(Claim {
            id,
            lease,
            expired_at: None,
        });
        self.next_release = Instant::now();
    }

    /// Gives back what is found of them, now that the database answers.
    pub(in crate::worker) async fn release(&mut self, lane: &Lane) {
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
                        "a claim whose answer was lost is given back: nothing of it was called"
                    );
                    lane.wake();
                }
                // A row of it may be locked at this moment: it is looked for again.
                self.claims
                    .retain(|claim| claim.expired_at.is_none_or(|expired_at| expired_at > now));
            }
            Err(error) => tracing::debug!(
                event = "claim_release_failed",
                app = lane.app,
                error = database_error_text(&error),
                "claims without an answer can't be looked for"
            ),
        }
        self.next_release = Instant::now() + RELEASE_EVERY;
    }
}
