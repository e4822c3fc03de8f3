//! An exhaustive model checker. It visits every state that a model can reach and checks the model's properties in each.
//!
//! - `always`: the condition is true in every reachable state. One state without it is a counterexample.
//! - `sometimes`: the condition is true in at least one reachable state. It shows that the model can reach a situation
//!   at all, so that the `always` properties are tested in it.
//!
//! The search is breadth first, so the path to a counterexample is one of the shortest. It is single-threaded, so every
//! run reports the same path. It ends when no action leads to a new state; a model with infinitely many states does not
//! end.
//!
//! There is no `eventually`, because the protocol has no property of that kind. Without fairness assumptions, "every
//! message ends eventually" is false: a claim that is released leads to the state before the claim, and this cycle
//! can repeat forever. The `always` property `promise::NOT_LOST` takes its place. It runs the recovery from each
//! reachable state.
//!
//! Visited states are kept as 128-bit fingerprints. Two states with one fingerprint would count as one, and the second
//! would go unchecked. For a million states the probability is below 2^-88 if fingerprints are as good as random.

use std::collections::{HashSet, VecDeque};
use std::fmt::{self, Debug, Display};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::ControlFlow;

/// A state machine. The hash of a state must cover every field that an action or a property reads, because the explorer
/// takes states with the same fingerprint for one state.
pub(crate) trait Model {
    type State: Hash;
    type Action: Copy + Debug;

    fn initial_state(&self) -> Self::State;

    /// Appends every action that is possible in `state`.
    fn actions(&self, state: &Self::State, actions: &mut Vec<Self::Action>);

    /// Returns the state after `action`. A state equal to `state` is not a transition.
    fn next_state(&self, state: &Self::State, action: Self::Action) -> Self::State;

    fn properties(&self) -> Vec<Property<Self>>;
}

/// A named claim about the reachable states of a model.
pub(crate) struct Property<M: Model + ?Sized> {
    name: &'static str,
    /// An `always` property, not a `sometimes` property.
    is_always: bool,
    condition: fn(&M, &M::State) -> bool,
}

impl<M: Model> Property<M> {
    pub(crate) fn always(name: &'static str, condition: fn(&M, &M::State) -> bool) -> Self {
        Self {
            name,
            is_always: true,
            condition,
        }
    }

    pub(crate) fn sometimes(name: &'static str, condition: fn(&M, &M::State) -> bool) -> Self {
        Self {
            is_always: false,
            ..Self::always(name, condition)
        }
    }

    /// True if `state` alone settles the property: it violates an `always` or satisfies a `sometimes`.
    fn is_settled_by(&self, model: &M, state: &M::State) -> bool {
        (self.condition)(model, state) != self.is_always
    }
}

/// The result of a complete exploration.
pub(crate) struct Exploration<A> {
    /// Distinct reachable states, with the initial one.
    pub(crate) states: usize,
    /// Pairs of a state and an action that changes it.
    pub(crate) transitions: usize,
    /// Actions on the shortest path to the most distant state.
    pub(crate) depth: usize,
    pub(crate) failures: Vec<Failure<A>>,
}

/// A property that is not true of the model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure<A> {
    /// An `always` property. The path leads from the initial state to a state that violates it.
    Violated {
        property: &'static str,
        path: Vec<A>,
    },
    /// A `sometimes` property.
    Unreachable { property: &'static str },
}

impl<A: Debug> Display for Failure<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violated { property, path } => {
                write!(
                    formatter,
                    "violated after {} actions: {property}",
                    path.len()
                )?;
                path.iter()
                    .try_for_each(|action| write!(formatter, "\n    {action:?}"))
            }
            Self::Unreachable { property } => write!(formatter, "unreachable: {property}"),
        }
    }
}

/// Explores every reachable state and checks every property of the model.
pub(crate) fn explore<M: Model>(model: &M) -> Exploration<M::Action> {
    let properties = model.properties();
    let mut settled_by = vec![None; properties.len()];
    let reached = search(model, |index, state| {
        for (property, settled_by) in properties.iter().zip(&mut settled_by) {
            if settled_by.is_none() && property.is_settled_by(model, state) {
                *settled_by = Some(index);
            }
        }
        ControlFlow::Continue(())
    });
    let failure = |(property, settled_by): (&Property<M>, Option<usize>)| {
        let (name, path) = (
            property.name,
            settled_by.map(|index| reached.path_to(index)),
        );
        match (property.is_always, path) {
            (true, Some(path)) => Some(Failure::Violated {
                property: name,
                path,
            }),
            (false, None) => Some(Failure::Unreachable { property: name }),
            (true, None) | (false, Some(_)) => None,
        }
    };
    Exploration {
        states: reached.origins.len(),
        transitions: reached.transitions,
        depth: reached.path_to(reached.origins.len() - 1).len(),
        failures: properties
            .iter()
            .zip(settled_by)
            .filter_map(failure)
            .collect(),
    }
}

/// Explores until one `always` property is violated, and checks no other property. `None` if it is true everywhere.
pub(crate) fn counterexample<M: Model>(
    model: &M,
    property: &'static str,
) -> Option<Failure<M::Action>> {
    let always = model
        .properties()
        .into_iter()
        .find(|always| always.is_always && always.name == property)
        .expect("the model has an `always` property of this name");
    let mut violated_by = None;
    let reached = search(model, |index, state| {
        if always.is_settled_by(model, state) {
            violated_by = Some(index);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    let path = reached.path_to(violated_by?);
    Some(Failure::Violated { property, path })
}

/// The states found by a search, each with the index that says when it was found.
struct Reached<A> {
    /// For each state the index of the state from which it was found first, and the action. `None` for the initial one.
    origins: Vec<Option<(usize, A)>>,
    transitions: usize,
}

impl<A: Copy> Reached<A> {
    fn path_to(&self, mut index: usize) -> Vec<A> {
        let mut path = Vec::new();
        while let Some((origin, action)) = self.origins[index] {
            path.push(action);
            index = origin;
        }
        path.reverse();
        path
    }
}

/// Visits states breadth first, each once, until `visit` breaks or no state is left.
fn search<M: Model>(
    model: &M,
    mut visit: impl FnMut(usize, &M::State) -> ControlFlow<()>,
) -> Reached<M::Action> {
    let initial = model.initial_state();
    let fingerprint = Fingerprint::of(&initial);
    let mut fingerprints = HashSet::<_, BuildHasherDefault<Fingerprint>>::default();
    fingerprints.insert(fingerprint);
    let mut reached = Reached {
        origins: vec![None],
        transitions: 0,
    };
    let mut queue = VecDeque::from([(fingerprint, initial)]);
    let mut actions = Vec::new();
    // The queue returns states in the order in which they were found, so a count is their index.
    for index in 0.. {
        let Some((fingerprint, state)) = queue.pop_front() else {
            break;
        };
        if visit(index, &state).is_break() {
            break;
        }
        model.actions(&state, &mut actions);
        for action in actions.drain(..) {
            let next = model.next_state(&state, action);
            let next_fingerprint = Fingerprint::of(&next);
            if next_fingerprint == fingerprint {
                continue;
            }
            reached.transitions += 1;
            if fingerprints.insert(next_fingerprint) {
                reached.origins.push(Some((index, action)));
                queue.push_back((next_fingerprint, next));
            }
        }
    }
    reached
}

/// A 128-bit hash. The hasher of the standard library has 64 bits and is slow in a build without optimization.
#[derive(Default)]
struct Fingerprint(u128);

impl Fingerprint {
    fn of(state: &impl Hash) -> u128 {
        let mut fingerprint = Self::default();
        state.hash(&mut fingerprint);
        fingerprint.0
    }

    /// Invertible, so two states that differ in a single value never collide.
    fn mix(&mut self, value: u64) {
        /// 2^128 divided by the golden ratio, rounded to an odd number: an even factor would not be invertible.
        const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        let product = (self.0 ^ u128::from(value)).wrapping_mul(FACTOR);
        self.0 = product ^ (product >> 64);
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.mix(u64::from(byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_usize(value.cast_unsigned());
    }

    /// Called by the set of visited fingerprints. A fingerprint is a hash already.
    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint;
    }

    #[expect(clippy::cast_possible_truncation, reason = "any 64 bits will do")]
    fn finish(&self) -> u64 {
        self.0 as u64
    }
}

mod tests {
    use super::{Failure, Fingerprint, Model, Property, counterexample, explore};
    use std::collections::HashSet;

    /// A graph whose states are numbers. An action is the number that it leads to.
    struct Graph<N> {
        initial: usize,
        next: N,
    }

    const NOT_9: &str = "9 is never reached";
    const MEETS_5: &str = "5 can be reached";

    impl<N: Fn(usize) -> Vec<usize>> Model for Graph<N> {
        type State = usize;
        type Action = usize;

        fn initial_state(&self) -> usize {
            self.initial
        }

        fn actions(&self, state: &usize, actions: &mut Vec<usize>) {
            actions.extend((self.next)(*state));
        }

        fn next_state(&self, _: &usize, action: usize) -> usize {
            action
        }

        fn properties(&self) -> Vec<Property<Self>> {
            vec![
                Property::always(NOT_9, |_, state| *state != 9),
                Property::sometimes(MEETS_5, |_, state| *state == 5),
            ]
        }
    }

    /// A graph that begins with 0.
    fn graph(edges: &[(usize, usize)]) -> impl Model<State = usize, Action = usize> {
        let next = |state| {
            let from_here = edges.iter().filter(move |(from, _)| *from == state);
            from_here.map(|(_, to)| *to).collect()
        };
        Graph { initial: 0, next }
    }

    fn violated(path: &[usize]) -> Failure<usize> {
        Failure::Violated {
            property: NOT_9,
            path: path.to_vec(),
        }
    }

    #[test]
    fn every_failure_is_reported_with_the_shortest_path_and_nothing_else() {
        let unreachable = || Failure::Unreachable { property: MEETS_5 };
        let two_ways = [(0, 5), (5, 6), (6, 7), (7, 9), (0, 1), (1, 2), (2, 9)];
        let beyond_cycles = [(0, 5), (5, 0), (5, 5), (5, 6), (6, 0), (6, 9)];
        for (edges, failures) in [
            (&[(0, 1), (1, 2), (2, 5)][..], vec![]),
            (&two_ways, vec![violated(&[1, 2, 9])]),
            (&beyond_cycles, vec![violated(&[5, 6, 9])]),
            (&[(0, 1), (1, 0), (4, 5)], vec![unreachable()]),
            (&[(0, 9)], vec![violated(&[9]), unreachable()]),
        ] {
            assert_eq!(explore(&graph(edges)).failures, failures, "{edges:?}");
        }
    }

    #[test]
    fn an_initial_state_can_violate_a_property() {
        let initial = Graph {
            initial: 9,
            next: |_| Vec::new(),
        };
        assert_eq!(counterexample(&initial, NOT_9), Some(violated(&[])));
        assert_eq!(explore(&initial).failures[0], violated(&[]));
    }

    #[test]
    fn cycles_and_joins_are_explored_once_and_self_loops_are_no_transitions() {
        let found = explore(&graph(&[(0, 1), (0, 2), (1, 3), (2, 3), (3, 0), (3, 3)]));
        assert_eq!((found.states, found.transitions, found.depth), (4, 5, 2));
    }

    #[test]
    fn a_counterexample_is_the_shortest_and_ends_the_exploration_of_an_endless_model() {
        let endless = Graph {
            initial: 0,
            next: |state| vec![state + 1, state + 2],
        };
        let Some(Failure::Violated { path, .. }) = counterexample(&endless, NOT_9) else {
            panic!("9 is reached");
        };
        assert_eq!((path.len(), path.last()), (5, Some(&9)));
    }

    #[test]
    fn a_property_that_is_true_has_no_counterexample() {
        assert_eq!(counterexample(&graph(&[(0, 1), (1, 0)]), NOT_9), None);
    }

    #[test]
    fn different_states_have_different_fingerprints() {
        let lists = (0..64_u8).flat_map(|first| (0..64_u8).map(move |second| (first, second)));
        let states = lists.flat_map(|(first, second)| {
            [
                vec![vec![first, second]],
                vec![vec![first], vec![second]],
                vec![vec![first, second], vec![]],
            ]
        });
        let fingerprints: HashSet<_> = states.map(|state| Fingerprint::of(&state)).collect();
        assert_eq!(fingerprints.len(), 3 * 64 * 64);
    }
}
