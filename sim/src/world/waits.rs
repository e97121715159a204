//! Wait-for graph.
