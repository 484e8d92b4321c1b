//! An open migration keeps both forms of a record: what both together are too long for is refused at the put, and does not end
//! in the quarantine.

use exuvia::engine::EngineKind;
use exuvia::{CastError, Error, Migration, Origin, Phase, Store, Table, Version};
use serde::{Deserialize, Serialize};

use crate::kit::kinds::kinds;
use crate::kit::scratch::Scratch;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Text(pub(crate) String);

/// Every text, so many times (three, if it begins with "thrice"): nobody knows without this code how long it becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Texts(Vec<String>);

impl Version for Text {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for Texts {
    const VERSION: u32 = 2;
    type Previous = Text;

    fn upcast(old: Text) -> Result<Self, CastError> {
        let times = if old.0.starts_with("thrice") { 3 } else { 1 };
        Ok(Texts(vec![old.0; times]))
    }

    fn downcast(&self, _last: Option<Text>) -> Result<Text, CastError> {
        Ok(Text(self.0.concat()))
    }

    fn merge(new: Text, _last: Self) -> Result<Option<Self>, CastError> {
        Self::upcast(new).map(Some)
    }
}

fn begun(kind: EngineKind, scratch: &Scratch) -> (Store, Table<u64, Text>, Table<u64, Texts>, Migration) {
    let options = Store::options().engine(kind).cache_bytes(16 << 20).free_bytes_min(0);
    let store = options.open(scratch.path().join(kind.name())).unwrap();
    let old: Table<u64, Text> = store.table("texts").unwrap();
    old.put(&0, &Text("first".to_owned())).unwrap();
    let new: Table<u64, Texts> = store.table("texts").unwrap();
    let migration = store.plan("texts").table(&new).begin().unwrap();
    migration.wait().unwrap();
    (store, old, new, migration)
}

fn record_max(kind: EngineKind) -> usize {
    if kind == EngineKind::Sled { 48 << 10 } else { 1 << 20 }
}

#[test]
fn what_old_code_may_write_is_brought_forward() {
    for kind in kinds() {
        let scratch = Scratch::new("both-forms");
        let (store, old, new, migration) = begun(kind, &scratch);
        let (mut fits, mut refused) = (0, 0);
        for eighths in 1..=8 {
            for less in [0, 30, 60, 100] {
                let text = "t".repeat(record_max(kind) * eighths / 8 - less);
                let key = (fits + refused) as u64;
                let before = old.get(&key).unwrap();
                match old.put(&key, &Text(text.clone())) {
                    Ok(()) => {
                        fits += 1;
                        assert_eq!(new.get(&key).unwrap(), Some(Texts(vec![text])));
                    }
                    Err(e) => {
                        refused += 1;
                        assert!(matches!(e, Error::Limit { .. }), "{e:?}");
                        assert_eq!(old.get(&key).unwrap(), before, "nothing was written");
                    }
                }
            }
        }
        println!("{}: {fits} fit, {refused} are refused", kind.name());
        assert!(fits >= 12);
        if kind != EngineKind::Sled {
            assert!(refused <= 3, "only what is over the limit of a record");
        }
        let status = migration.wait().unwrap();
        assert_eq!(status.phase, Phase::Complete);
        assert_eq!(old.quarantined().count() + new.quarantined().count(), 0);
        // What old code reads needs no newer code, and what the contract leaves is whole.
        let read: Vec<_> = old.scan(..).map(|record| record.unwrap()).collect();
        migration.contract().unwrap().execute().unwrap();
        for (key, text) in read {
            assert_eq!(new.get(&key).unwrap(), Some(Texts(vec![text.0])));
        }
        assert!(store.verify().unwrap().is_clean());
    }
}

/// How long a record becomes only newer code knows: that may still be too long, and is mended by whoever writes it again.
#[test]
fn a_record_that_grows_too_long_can_be_overwritten() {
    for kind in kinds() {
        let scratch = Scratch::new("grown");
        let (store, old, new, migration) = begun(kind, &scratch);
        let long = Text(format!("thrice {}", "t".repeat(record_max(kind) * 7 / 16)));
        for key in 1..=4 {
            old.put(&key, &long).unwrap();
        }
        migration.wait().unwrap();
        assert_eq!(new.quarantined().count(), 4);
        let error = new.get(&1).unwrap_err();
        assert!(error.to_string().contains("over the limit"), "{error}");
        assert_eq!(old.get(&1).unwrap(), Some(long.clone()), "its old form is whole");
        assert!(migration.contract().and_then(|plan| plan.execute()).is_err());
        old.put(&1, &Text("thrice".to_owned())).unwrap();
        new.put(&2, &Texts(vec!["new".to_owned()])).unwrap();
        old.remove(&3).unwrap();
        new.remove(&4).unwrap();
        migration.wait().unwrap();
        assert_eq!(new.quarantined().count(), 0);
        migration.contract().unwrap().execute().unwrap();
        assert_eq!(new.get(&1).unwrap(), Some(Texts(vec!["thrice".to_owned(); 3])));
        assert_eq!(new.get(&2).unwrap(), Some(Texts(vec!["new".to_owned()])));
        assert_eq!(new.len().unwrap(), 3);
        assert!(store.verify().unwrap().is_clean());
    }
}
