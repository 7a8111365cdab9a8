//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package agency

// lock does nothing where the system has no such lock: one connector per
// folder is the operator's care.
func lock(string) (unlock func(), err error) { return func() {}, nil }
