"""The store breaks, and so do the gateway's own processes: what was acknowledged stays, once; traffic goes on."""
