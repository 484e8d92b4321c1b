//! What a transaction saw and will write.

use std::collections::BTreeMap;

use crate::engine::NamedTree;
use crate::engine::{Check, EngineResult, Value, Write};
use crate::form::lookup::{Held, Lookup};

/// Boxed: a node of the map has room for eleven, and most transactions touch a few keys.
type Slots = BTreeMap<Vec<u8>, Box<Slot>>;

/// The keys that a transaction saw or will write, by tree.
#[derive(Default)]
pub(super) struct Footprint {
    trees: Vec<(NamedTree, Slots)>,
}

#[derive(Default)]
pub(super) struct Slot {
    /// What the engine answered, if that has to be there still.
    pub(super) seen: Option<Option<Value>>,
    /// What will be written; `Some(None)` removes.
    pub(super) write: Option<Option<Vec<u8>>>,
    /// The overlay's entry that goes when its record is in the base: to be written after that.
    pub(super) clears: bool,
}

impl Footprint {
    fn keys(&mut self, tree: &NamedTree) -> &mut Slots {
        let at = self.trees.iter().position(|(known, _)| known.name == tree.name);
        let at = at.unwrap_or_else(|| {
            self.trees.push((tree.clone(), BTreeMap::new()));
            self.trees.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
        &mut self.trees[at].1
    }

    pub(super) fn slot(&mut self, tree: &NamedTree, key: &[u8]) -> &mut Slot {
        self.keys(tree).entry(key.to_vec()).or_default()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (&NamedTree, &[u8], &Slot)> {
        self.trees
            .iter()
            .flat_map(|(tree, keys)| keys.iter().map(move |(key, slot)| (tree, key.as_slice(), &**slot)))
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        let check = |(tree, key, slot): (&NamedTree, &[u8], &Slot)| {
            let expected = slot.seen.as_ref()?.as_ref().map(|value| value.to_vec());
            Some(Check { tree: tree.name.to_string(), key: key.to_vec(), expected })
        };
        self.slots().filter_map(check).collect()
    }

    /// In the order in which a scan may see them.
    pub(super) fn writes(&self) -> Vec<Write> {
        let of = |clears: bool| {
            self.slots().filter(move |(.., slot)| slot.clears == clears).filter_map(|(tree, key, slot)| {
                let value = slot.write.clone()?;
                Some(Write { tree: tree.name.to_string(), key: key.to_vec(), value })
            })
        };
        of(false).chain(of(true)).collect()
    }
}

impl Lookup for Footprint {
    const FRONTIER: bool = false;

    fn get(&mut self, tree: &NamedTree, key: &[u8], held: Held) -> EngineResult<Option<Value>> {
        match self.keys(tree).get(key).map(|slot| &**slot) {
            Some(Slot { write: Some(write), .. }) => return Ok(write.as_deref().map(Value::from)),
            Some(Slot { seen: Some(seen), .. }) => return Ok(seen.clone()),
            _ => {}
        }
        let value = tree.tree.get(key)?;
        if held == Held::Changing || held == Held::Draining && value.is_some() {
            self.slot(tree, key).seen = Some(value.clone());
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, MemoryEngine};

    /// A scan that sees a part of a commit must find a record in its overlay or in its base.
    #[test]
    fn what_leaves_an_overlay_is_written_after_all_that_comes_to_a_base() {
        let engine = MemoryEngine::new();
        let tree = |name: &str| NamedTree { name: name.into(), tree: engine.tree(name).expect("made") };
        let (overlay, base) = (tree("1/3"), tree("1/2"));
        let mut footprint = Footprint::default();
        for key in [b"a", b"b"] {
            let slot = footprint.slot(&overlay, key);
            (slot.write, slot.clears) = (Some(None), true);
            footprint.slot(&base, key).write = Some(Some(b"kept".to_vec()));
        }
        // Only looked at.
        footprint.get(&base, b"c", Held::Changing).expect("read");
        let writes: Vec<_> = footprint.writes().into_iter().map(|write| (write.tree, write.key)).collect();
        let expected = [("1/2", b"a"), ("1/2", b"b"), ("1/3", b"a"), ("1/3", b"b")];
        assert_eq!(writes, expected.map(|(tree, key)| (tree.to_owned(), key.to_vec())));
    }
}
