"""Part -> graph: export with the axes that were asked for, names, weights beside the graph, module map."""
