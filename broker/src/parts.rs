//! Parts: constructors for what stands behind each handle, so that one component can be replaced inside
//! a whole node. [`Parts::production`] is what the binary uses.
