//! The gateway as a whole, between clients on in-memory connections and a scripted host, with virtual time: limits of half a
//! minute cost nothing here, and nothing depends on how busy the machine is.

mod scene;

mod smoke;
