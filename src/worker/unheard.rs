//! Claims whose answers never came. The database may have carried them out: then their rows are this worker's for as
//! long as the lease, and nobody calls them. So they are given back as soon as the database answers again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::lane::Lane;
use crate::outbox::explain;

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
    /// Nothing of it is left after that.
    lease_ends: Instant,
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
            lease_ends: Instant::now() + lease,
        });
        self.next_look = Instant::now();
    }

    /// Gives back what is found of them, now that the database answers.
    pub(super) async fn give_back(&mut self, lane: &Lane) {
        let now = Instant::now();
        if self.claims.is_empty() || now < self.next_look {
            return;
        }
        self.next_look = now + LOOK_EVERY;
        self.claims.retain(|claim| claim.lease_ends > now);
        for _ in 0..self.claims.len() {
            let Some(claim) = self.claims.pop_front() else {
                return;
            };
            match lane
                .shared
                .outbox
                .give_back_claim(&lane.app, claim.id)
                .await
            {
                Ok(0) => self.claims.push_back(claim),
                Ok(messages) => {
                    tracing::info!(
                        app = lane.app,
                        messages,
                        "a claim whose answer was lost is given back: nothing of it was called"
                    );
                    lane.ring();
                }
                Err(error) => {
                    tracing::debug!(
                        app = lane.app,
                        error = explain(&error),
                        "a claim without an answer can't be looked for"
                    );
                    self.claims.push_back(claim);
                    return;
                }
            }
        }
    }
}
