//! Claims whose answers never came. The database may have carried them out: then their rows are this worker's for as
//! long as the lease, and nobody calls them. So they are given back as soon as the database answers again.

use crate::error_text::database_error_text;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::lane::Lane;

/// Most claims to remember. The rows of others are due again when their leases end.
const MOST: usize = 32;
/// How often a claim is looked for: a statement that a network has swallowed may reach the server late.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A lane's claims without an answer.
#[derive(Debug)]
pub(super) struct Unheard {
    claims: VecDeque<Claim>,
    next_look: Instant,
}

#[derive(Debug)]
struct Claim {
    id: Uuid,
    lease: Duration,
    /// When nothing of it can be left: a lease after the database has answered again. It may have carried the claim out
    /// no sooner.
    gone_at: Option<Instant>,
}

impl Unheard {
    pub(super) fn new() -> Self {
        Self {
            claims: VecDeque::new(),
            next_look: Instant::now(),
        }
    }

    /// Remembers a claim.
    pub(super) fn add(&mut self, id: Uuid, lease: Duration) {
        if self.claims.len() == MOST {
            self.claims.pop_front();
        }
        self.claims.push_back(Claim {
            id,
            lease,
            gone_at: None,
        });
        self.next_look = Instant::now();
    }

    /// Gives back what is found of them, now that the database answers.
    pub(super) async fn give_back(&mut self, lane: &Lane) {
        let now = Instant::now();
        if self.claims.is_empty() || now < self.next_look {
            return;
        }
        for claim in &mut self.claims {
            claim.gone_at.get_or_insert(now + claim.lease);
        }
        let ids: Vec<Uuid> = self.claims.iter().map(|claim| claim.id).collect();
        match lane.shared.outbox.release_claims(&lane.app, &ids).await {
            Ok(found) => {
                if !found.is_empty() {
                    tracing::info!(
                        app = lane.app,
                        claims = found.len(),
                        "a claim whose answer was lost is given back: nothing of it was called"
                    );
                    lane.ring();
                }
                // A row of it may be locked at this moment: it is looked for again.
                self.claims
                    .retain(|claim| claim.gone_at.is_none_or(|gone_at| gone_at > now));
            }
            Err(error) => tracing::debug!(
                app = lane.app,
                error = database_error_text(&error),
                "claims without an answer can't be looked for"
            ),
        }
        self.next_look = Instant::now() + LOOK_EVERY;
    }
}
