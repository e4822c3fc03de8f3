//! State that the endpoints and the control API share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use uuid::Uuid;

use super::behaviour::Behaviour;
use super::faults::Faults;
use super::ledger::Ledger;

#[derive(Debug)]
pub(super) struct ApiState {
    pub(super) ledger: Arc<Ledger>,
    behaviour: RwLock<Arc<Behaviour>>,
    faults: Mutex<Faults>,
    /// Tells the request IDs of this simulator from those of another with the same ledger.
    instance: String,
}

impl ApiState {
    pub(super) fn new(ledger: Arc<Ledger>, behaviour: Behaviour, faults: Faults) -> Self {
        let (instance, ..) = Uuid::new_v4().as_fields();
        Self {
            ledger,
            behaviour: RwLock::new(Arc::new(behaviour)),
            faults: Mutex::new(faults),
            instance: format!("{instance:08x}"),
        }
    }

    pub(super) fn behaviour(&self) -> Arc<Behaviour> {
        let behaviour = self.behaviour.read();
        Arc::clone(&behaviour.unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_behaviour(&self, behaviour: Behaviour) {
        let mut present = self
            .behaviour
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *present = Arc::new(behaviour);
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn request_id(&self, number: u64) -> String {
        format!("{}{number:010x}", self.instance)
    }
}
