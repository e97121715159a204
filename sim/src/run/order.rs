//! What decides the course of a run.

use reports::Verdict;

use super::node;
use crate::fault::FaultPlan;
use crate::plan;
use crate::scenario::{NODES, Settings, ShelvedScenario};

/// Whose code stands behind the handles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The scenario's part, if it names one.
    AsTheScenarioSays,
    Production,
    Part(String),
}

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub scenario: ShelvedScenario,
    pub seed: u64,
    pub choice: Choice,
    /// Instead of the plan that the seed draws.
    pub plan: Option<FaultPlan>,
    /// The file that it was read from.
    pub plan_file: Option<String>,
    /// Instead of the settings that the seed draws.
    pub settings: Option<Settings>,
}

impl Order {
    pub fn new(mut scenario: ShelvedScenario, seed: u64) -> Order {
        scenario.scenario = scenario.scenario.of_seed(seed);
        Order {
            scenario,
            seed,
            choice: Choice::AsTheScenarioSays,
            plan: None,
            plan_file: None,
            settings: None,
        }
    }

    /// The part that is put in, if any.
    pub fn part(&self) -> Option<&str> {
        match &self.choice {
            Choice::AsTheScenarioSays => self.scenario.scenario.part.as_deref(),
            Choice::Production => None,
            Choice::Part(part) => Some(part),
        }
    }

    /// The scenario's expectation is about its own part: with another, or with none, all should be well.
    pub fn expected(&self) -> Verdict {
        let scenario = &self.scenario.scenario;
        if self.part() == scenario.part.as_deref() { scenario.expect } else { Verdict::Pass }
    }

    pub fn faults(&self) -> FaultPlan {
        match &self.plan {
            Some(plan) => plan.clone(),
            None => plan::plan(&self.scenario.scenario, self.seed),
        }
    }

    /// What the seed drew for nodes and machines.
    pub fn settings(&self) -> Settings {
        let scenario = &self.scenario.scenario;
        let fits = |settings: &Settings| node::config(scenario, settings, 1).check().is_ok();
        if let Some(settings) = &self.settings {
            return settings.clone();
        }
        let mut settings = scenario.knobs.settings(self.seed, fits);
        if scenario.cluster.nodes_drawn.all().len() > 1 {
            settings.insert(NODES.to_owned(), scenario.cluster.nodes.to_string());
        }
        settings
    }
}
