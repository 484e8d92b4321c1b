//! What a catalog must be, beyond decoding. Damage that its checksum did not show (a tool, a bug) is found before
//! anything is built on it, above all before a sweep takes a tree for nobody's.

use std::collections::BTreeSet;

use super::{Catalog, TableEntry, damaged};
use crate::error::{Error, Result};

pub(super) fn check(catalog: &Catalog) -> Result<()> {
    for (name, entry) in &catalog.migrations {
        let known = entry.known_phase().ok_or_else(|| Error::Format {
            reason: format!(
                "the catalog gives migration {name} the unknown phase code {}: the store may be of a newer \
                 release of exuvia; use that",
                entry.phase
            ),
        })?;
        for step in entry.tables.iter().filter(|_| !known.is_closed()) {
            let table = catalog.table(&step.table)?;
            if table.migration.as_ref() != Some(name) {
                return Err(damaged(format!("table {} does not know of migration {name}", step.table)));
            }
        }
    }
    let mut ids = BTreeSet::new();
    for (name, table) in &catalog.tables {
        if let Err(reason) = check_table(catalog, name, table) {
            return Err(damaged(format!("table {name} {reason}")));
        }
        let own = std::iter::once(table.id).chain(table.generations.iter().map(|generation| generation.id));
        for id in own {
            if id >= catalog.next_id || !ids.insert(id) {
                return Err(damaged(format!("table {name} has the id {id}, which is not its own")));
            }
        }
    }
    Ok(())
}

fn check_table(catalog: &Catalog, name: &str, table: &TableEntry) -> Result<(), String> {
    let TableEntry { active, floor, stored, oldest, .. } = table;
    if floor > stored || oldest > stored {
        return Err(format!("is written in version {stored}, below its floor {floor} or oldest {oldest}"));
    }
    let generations = match &table.migration {
        None if active != stored => {
            return Err(format!("is settled at version {stored}, and version {active} is active"));
        }
        None => 1,
        Some(migration) => {
            let open = catalog
                .migrations
                .get(migration)
                .filter(|entry| entry.known_phase().is_some_and(|p| !p.is_closed()));
            let step = open.and_then(|entry| entry.tables.iter().find(|step| step.table == name));
            let Some(step) = step else {
                return Err(format!("names the migration {migration}, which is not open for it"));
            };
            if step.from != *stored || step.to <= step.from || ![step.from, step.to].contains(active) {
                return Err(format!("does not fit the versions of migration {migration}"));
            }
            if step.metadata_only { 1 } else { 2 }
        }
    };
    if table.generations.len() != generations {
        return Err(format!("has {} generations and not {generations}", table.generations.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::catalog::{Generation, MigrationEntry, Phase, Step};

    const TABLE: &str = "users";
    const MIGRATION: &str = "split";

    /// A settled table at version 3, made of two ids, that read versions back to 2.
    fn settled() -> Catalog {
        let mut catalog = Catalog::new("memory");
        let (id, generation) = (catalog.new_id(), catalog.new_id());
        let table = TableEntry {
            id,
            active: 3,
            floor: 2,
            stored: 3,
            oldest: 2,
            generations: vec![Generation { id: generation, unswept: false }],
            shapes: Default::default(),
            migration: None,
            key: None,
            codecs: Default::default(),
        };
        catalog.tables.insert(TABLE.to_owned(), table);
        catalog
    }

    /// The same in an open migration from 3 to 4.
    fn open(metadata_only: bool) -> Catalog {
        let mut catalog = settled();
        let generation = catalog.new_id();
        let table = catalog.table_mut(TABLE).unwrap();
        (table.active, table.migration) = (4, Some(MIGRATION.to_owned()));
        if !metadata_only {
            table.generations.push(Generation { id: generation, unswept: false });
        }
        let step = Step { table: TABLE.to_owned(), from: 3, to: 4, metadata_only };
        let entry = MigrationEntry::new(String::new(), String::new(), false, 0, vec![step]);
        catalog.migrations.insert(MIGRATION.to_owned(), entry);
        catalog
    }

    fn refused(mut catalog: Catalog, damage: impl FnOnce(&mut Catalog, &mut TableEntry)) -> String {
        let mut table = catalog.table(TABLE).unwrap().clone();
        damage(&mut catalog, &mut table);
        catalog.tables.insert(TABLE.to_owned(), table);
        check(&catalog).unwrap_err().to_string()
    }

    #[test]
    fn what_the_store_commits_is_accepted() {
        check(&Catalog::new("memory")).unwrap();
        check(&settled()).unwrap();
        for metadata_only in [false, true] {
            let mut catalog = open(metadata_only);
            check(&catalog).unwrap();
            // Rolled back.
            catalog.table_mut(TABLE).unwrap().active = 3;
            catalog.migration_mut(MIGRATION).unwrap().set_phase(Phase::RolledBack);
            check(&catalog).unwrap();
            // A closed migration is history: the table may have gone on, or gone.
            catalog.migration_mut(MIGRATION).unwrap().set_phase(Phase::Abandoned);
            let table = catalog.table_mut(TABLE).unwrap();
            table.migration = None;
            table.generations.truncate(1);
            check(&catalog).unwrap();
            catalog.tables.clear();
            check(&catalog).unwrap();
        }
        // Everything at one version: none is below another.
        let mut catalog = settled();
        let table = catalog.table_mut(TABLE).unwrap();
        (table.floor, table.oldest) = (3, 3);
        check(&catalog).unwrap();
    }

    #[test]
    fn versions_that_contradict_each_other_are_damage() {
        let says = refused(settled(), |_, table| table.floor = 4);
        assert!(says.contains("below its floor 4"), "{says}");
        let says = refused(settled(), |_, table| table.oldest = 4);
        assert!(says.contains("or oldest 4"), "{says}");
        let says = refused(settled(), |_, table| table.active = 4);
        assert!(says.contains("is settled at version 3, and version 4 is active"), "{says}");
    }

    #[test]
    fn a_table_and_its_migration_know_each_other() {
        let says = refused(open(false), |_, table| table.migration = None);
        assert!(says.contains("does not know of migration split"), "{says}");
        let says = refused(open(false), |catalog, _| catalog.migrations.clear());
        assert!(says.contains("names the migration split, which is not open for it"), "{says}");
        let closed = |catalog: &mut Catalog, _: &mut TableEntry| {
            catalog.migration_mut(MIGRATION).unwrap().set_phase(Phase::Contracted);
        };
        let says = refused(open(false), closed);
        assert!(says.contains("which is not open for it"), "{says}");
        let others = |catalog: &mut Catalog, _: &mut TableEntry| {
            catalog.migration_mut(MIGRATION).unwrap().tables.clear();
        };
        let says = refused(open(false), others);
        assert!(says.contains("which is not open for it"), "{says}");
        let mut catalog = open(false);
        catalog.tables.clear();
        assert!(check(&catalog).is_err(), "an open migration of a table that is not there");
    }

    #[test]
    fn a_step_goes_forward_from_what_is_stored_and_one_of_its_ends_is_active() {
        let step = |change: fn(&mut Step)| {
            refused(open(false), move |catalog, _| {
                change(&mut catalog.migration_mut(MIGRATION).unwrap().tables[0])
            })
        };
        let misfits = [
            step(|step| step.from = 2),
            step(|step| (step.from, step.to) = (3, 3)),
            step(|step| step.to = 2),
            refused(open(false), |_, table| table.active = 5),
        ];
        for says in misfits {
            assert!(says.contains("does not fit the versions of migration split"), "{says}");
        }
    }

    #[test]
    fn a_table_has_two_generations_while_records_are_rewritten_and_one_else() {
        let one_more = |catalog: &mut Catalog, table: &mut TableEntry| {
            table.generations.push(Generation { id: catalog.new_id(), unswept: false });
        };
        for (catalog, has) in [(settled(), 2), (open(true), 2), (open(false), 3)] {
            let says = refused(catalog, one_more);
            assert!(says.contains(&format!("has {has} generations and not {}", has - 1)), "{says}");
        }
        assert!(
            refused(open(false), |_, table| table.generations.truncate(1))
                .contains("has 1 generations and not 2")
        );
        assert!(
            refused(settled(), |_, table| table.generations.clear()).contains("has 0 generations and not 1")
        );
    }

    /// A generation that two tables share, or that is still to be given out, would be swept under somebody's records.
    #[test]
    fn an_id_belongs_to_one_and_was_given_out() {
        let own = "which is not its own";
        assert!(refused(settled(), |catalog, table| table.id = catalog.next_id).contains(own));
        assert!(refused(settled(), |catalog, table| table.generations[0].id = catalog.next_id).contains(own));
        assert!(refused(settled(), |_, table| table.generations[0].id = table.id).contains(own));
        let twice = |catalog: &mut Catalog, table: &mut TableEntry| {
            let mut other = table.clone();
            other.id = catalog.new_id();
            catalog.tables.insert("other".to_owned(), other);
        };
        assert!(refused(settled(), twice).contains(own));
    }

    #[test]
    fn an_unknown_phase_is_an_error_that_names_it() {
        let says = refused(open(false), |catalog, _| catalog.migration_mut(MIGRATION).unwrap().phase = 77);
        assert!(says.contains("migration split the unknown phase code 77"), "{says}");
    }
}
