//! A container's environment: who wins, and in which order.
//!
//! Precedence: the container's own `env` > the language's > the common one > what is generated. Only names within `env`
//! are compared. The order matters, because `$(NAME)` refers only to what stands before it.

use std::collections::{BTreeSet, HashMap, HashSet};

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};

use super::targets::NODE_NAME_VARIABLE;

pub(super) const POD_NAME_VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES_POD_NAME";
pub(super) const POD_UID_VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES_POD_UID";
pub(super) const RESOURCE_ATTRIBUTES_VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES";
const NODE_IP_VARIABLE: &str = "OTEL_NODE_IP";
const POD_IP_VARIABLE: &str = "OTEL_POD_IP";

/// The `env` of a container while it is being extended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Environment {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    variable: EnvVar,
    /// Of the author's variables, the names that this one refers to and that stood before it: it is moved only behind
    /// these. `None`: added.
    resolved: Option<BTreeSet<String>>,
}

impl Entry {
    fn added(variable: EnvVar) -> Self {
        Self { variable, resolved: None }
    }
}

impl Environment {
    pub(super) fn of(variables: Option<Vec<EnvVar>>) -> Self {
        let mut names = HashSet::new();
        let entry = |variable: EnvVar| {
            let referred = references(variable.value.as_deref().unwrap_or_default());
            let resolved = referred.filter(|name| names.contains(*name)).map(str::to_owned).collect();
            names.insert(variable.name.clone());
            Entry { variable, resolved: Some(resolved) }
        };
        Self { entries: variables.unwrap_or_default().into_iter().map(entry).collect() }
    }

    /// Where the name stands twice the last one counts, as for the kubelet.
    pub(super) fn get(&self, name: &str) -> Option<&EnvVar> {
        self.entries.iter().rev().map(|entry| &entry.variable).find(|variable| variable.name == name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn push(&mut self, variable: EnvVar) {
        self.entries.push(Entry::added(variable));
    }

    pub(super) fn push_absent(&mut self, variable: EnvVar) {
        if !self.has(&variable.name) {
            self.push(variable);
        }
    }

    pub(super) fn push_all_absent(&mut self, variables: &[EnvVar]) {
        for variable in variables {
            self.push_absent(variable.clone());
        }
    }

    /// The addresses that endpoints may refer to, first of all, so that everything else can use them.
    pub(super) fn prepend_addresses(&mut self) {
        for variable in [field(POD_IP_VARIABLE, "status.podIP"), field(NODE_IP_VARIABLE, "status.hostIP")] {
            if !self.has(&variable.name) {
                self.entries.insert(0, Entry::added(variable));
            }
        }
    }

    /// The same addresses, for containers in which everything else comes first.
    pub(super) fn append_addresses(&mut self) {
        self.push_absent(field(POD_IP_VARIABLE, "status.podIP"));
        self.push_absent(field(NODE_IP_VARIABLE, "status.hostIP"));
    }

    /// Changes a literal value where it stands, or adds a new variable at the end; `change` gets what is there. `false`:
    /// the variable's value comes from elsewhere and stays as it is.
    pub(super) fn change_value(&mut self, name: &str, change: impl FnOnce(Option<&str>) -> String) -> bool {
        match self.entries.iter_mut().rev().map(|entry| &mut entry.variable).find(|variable| variable.name == name) {
            Some(variable) if variable.value_from.is_some() => return false,
            Some(variable) => variable.value = Some(change(Some(variable.value.as_deref().unwrap_or_default()))),
            None => self.push(literal(name, change(None))),
        }
        true
    }

    /// Sets a literal and moves it to the very end.
    pub(super) fn set_last(&mut self, variable: EnvVar) {
        let mut resolved = None;
        self.entries.retain_mut(|entry| {
            let others = entry.variable.name != variable.name;
            if !others {
                resolved = entry.resolved.take();
            }
            others
        });
        self.entries.push(Entry { variable, resolved });
    }

    /// The finished list as it was put together.
    pub(super) fn into_variables_as_they_stand(self) -> Vec<EnvVar> {
        self.entries.into_iter().map(|entry| entry.variable).collect()
    }

    /// The finished list, in an order in which every reference among added variables resolves if any order can: a
    /// variable that refers to a later one moves behind it. So does one of the author's if what it refers to was moved.
    /// Without such references the order stays as it is. Takes a time that grows with the list and no faster.
    pub(super) fn into_variables(self) -> Vec<EnvVar> {
        let present: HashSet<&str> = self.entries.iter().map(|entry| entry.variable.name.as_str()).collect();
        let mut placed: HashSet<&str> = HashSet::with_capacity(present.len());
        // By name, the variables that wait for it; and for each of them, how many names it waits for.
        let mut waiting: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut lacks: HashMap<usize, usize> = HashMap::new();
        let mut order = Vec::with_capacity(self.entries.len());
        for (at, Entry { variable, resolved }) in self.entries.iter().enumerate() {
            let lacking: HashSet<&str> = references(variable.value.as_deref().unwrap_or_default())
                .filter(|name| *name != variable.name && present.contains(name) && !placed.contains(name))
                .filter(|name| resolved.as_ref().is_none_or(|resolved| resolved.contains(*name)))
                .collect();
            if !lacking.is_empty() {
                lacks.insert(at, lacking.len());
                for name in lacking {
                    waiting.entry(name).or_default().push(at);
                }
                continue;
            }
            let mut ready = vec![at];
            while let Some(at) = ready.pop() {
                let Some(Entry { variable, .. }) = self.entries.get(at) else { continue };
                order.push(at);
                placed.insert(&variable.name);
                for waiter in waiting.remove(variable.name.as_str()).unwrap_or_default() {
                    if let Some(lacking) = lacks.get_mut(&waiter) {
                        *lacking -= 1;
                        if *lacking == 0 {
                            ready.push(waiter);
                        }
                    }
                }
            }
        }
        if order.len() < self.entries.len() {
            // Some refer to one another in a circle, and then no order is better than the one they came in.
            return self.into_variables_as_they_stand();
        }
        order.into_iter().filter_map(|at| self.entries.get(at)).map(|entry| entry.variable.clone()).collect()
    }
}

/// A variable with a value.
pub(super) fn literal(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None }
}

/// A variable that holds a field of the pod.
pub(super) fn field(name: &str, path: &str) -> EnvVar {
    let field_ref = ObjectFieldSelector { api_version: None, field_path: path.to_owned() };
    let source = EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// The pod's name: at admission it is not known yet.
pub(super) fn pod_name() -> EnvVar {
    field(POD_NAME_VARIABLE, "metadata.name")
}

pub(super) fn pod_uid() -> EnvVar {
    field(POD_UID_VARIABLE, "metadata.uid")
}

pub(super) fn node_name() -> EnvVar {
    field(NODE_NAME_VARIABLE, "spec.nodeName")
}

/// `$(NAME)` as it stands in a value.
pub(super) fn reference(name: &str) -> String {
    format!("$({name})")
}

/// Names that a value refers to. `$$` escapes a dollar sign.
fn references(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once('$')?;
            if let Some(escaped) = after.strip_prefix('$') {
                rest = escaped;
                continue;
            }
            rest = after;
            if let Some(inner) = after.strip_prefix('(') {
                let (name, behind) = inner.split_once(')')?;
                rest = behind;
                return Some(name);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(variables: &[EnvVar]) -> Vec<&str> {
        variables.iter().map(|var| var.name.as_str()).collect()
    }

    #[test]
    fn references_are_found_and_escapes_are_not() {
        let found: Vec<&str> = references("a$(X)b$$(Y)$(Z)$ $(open").collect();
        assert_eq!(found, ["X", "Z"]);
    }

    #[test]
    fn a_variable_that_refers_to_a_later_one_moves_behind_it() {
        let mut env = Environment::of(Some(vec![literal("OWN", "$(LATER)")]));
        env.push_absent(literal("A", "$(B)"));
        env.push_absent(literal("B", "$(C)-x"));
        env.push_absent(literal("C", "1"));
        env.push_absent(literal("D", "2"));
        assert_eq!(names(&env.into_variables()), ["OWN", "C", "B", "A", "D"]);
    }

    #[test]
    fn a_circle_keeps_its_order() {
        let mut env = Environment::of(None);
        env.push_absent(literal("A", "$(B)"));
        env.push_absent(literal("B", "$(A)"));
        assert_eq!(names(&env.into_variables()), ["A", "B"]);
    }

    #[test]
    fn what_resolved_before_still_does() {
        let own = vec![literal("ATTRIBUTES", "a=b"), literal("COPY", "$(ATTRIBUTES)"), literal("NOT", "$(COPY2)")];
        let mut env = Environment::of(Some(own));
        env.set_last(literal("ATTRIBUTES", "a=b,c=d"));
        assert_eq!(names(&env.into_variables()), ["NOT", "ATTRIBUTES", "COPY"]);
    }

    #[test]
    fn of_two_with_one_name_each_has_its_own_references() {
        let own = vec![literal("C", "$(A)"), literal("A", ""), literal("C", "$(A)")];
        let env = Environment::of(Some(own));
        assert_eq!(names(&env.into_variables()), ["C", "A", "C"]);
    }

    #[test]
    fn a_circle_in_a_large_environment_takes_no_time() {
        let own = (0..50_000).map(|number| literal(&format!("V{number}"), "x")).collect();
        let mut env = Environment::of(Some(own));
        env.push_absent(literal("A", "$(B)"));
        env.push_absent(literal("B", "$(A)"));
        let started = std::time::Instant::now();
        assert_eq!(env.into_variables().len(), 50_002);
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[test]
    fn addresses_come_first_and_once() {
        let mut env = Environment::of(Some(vec![literal("X", "1"), literal("OTEL_POD_IP", "own")]));
        env.prepend_addresses();
        assert_eq!(names(&env.into_variables()), ["OTEL_NODE_IP", "X", "OTEL_POD_IP"]);
    }

    proptest! {
        #[test]
        fn own_variables_keep_their_order_and_all_stay(
            own in proptest::collection::vec(("[A-C]", "(\\$\\([A-F]\\)|x|\\$\\$){0,3}"), 0..4),
            added in proptest::collection::vec(("[A-F]", "(\\$\\([A-F]\\)|x|\\$\\$){0,3}"), 0..6),
        ) {
            let own: Vec<EnvVar> = own.iter().map(|(name, value)| literal(name, value.as_str())).collect();
            let mut env = Environment::of(Some(own.clone()));
            for (name, value) in &added {
                env.push_absent(literal(name, value.as_str()));
            }
            let mut before = env.clone().into_variables_as_they_stand();
            let mut after = env.into_variables();
            let kept: Vec<&EnvVar> = after.iter().filter(|var| own.contains(var)).collect();
            prop_assert_eq!(kept, own.iter().collect::<Vec<_>>());
            before.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
            after.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
            prop_assert_eq!(before, after);
        }
    }
}
