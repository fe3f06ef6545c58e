//! Start order, reload, shutdown and task ownership: wires the rooms.
