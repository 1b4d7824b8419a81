"""A node: a process that serves one store on the network. Imports store, wire and operations; never Django."""
