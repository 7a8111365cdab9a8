// Package simulation runs whole meshes inside testing/synctest, many thousands of
// them, each with its own seed, its own faults and its own virtual clock.
//
// What is real: relay.Relay with all its parts (ingress, forward, keeper, ledger,
// spool with its journal), gRPC between them, routing.Directory on each relay,
// and the client and the outbox of relay/agency. What is simulated, through seams
// of the code:
//
//   - the network (network.go, conn.go): byte streams in memory, whose delays,
//     cuts, resets and silences run on the bubble's clock; a connection carries
//     the identities that TLS would have proven (endpoint.go). Below TCP nothing
//     is simulated: packets that are lost, doubled or late are a stream that
//     stands still for a while. What is doubled and reordered is what TCP does
//     not order: streams, sessions, and whatever is tried again;
//   - the disks (disk.go, file.go): what is durable and what only the kernel has
//     are kept apart, and a crash takes of the latter what its seed says, sector
//     by sector, name by name. The index lies on a map in place of badger
//     (index.go), of which a crash leaves each transaction whole or not at all;
//   - consensus (directory.go): one order of commands, which each relay applies
//     with a lag of its own, and which takes nothing while there is no leader;
//   - the clocks of relays (node.go): true time and an offset.
//
// A plan (plan.go) says who sends what to whom, how recipients behave, and which
// faults happen when (fault.go, stop.go). When it is over, everything is mended,
// and the mesh has to come to rest by itself (finish.go). It is checked that:
//
//   - what a sender was promised is in the books of each recipient once and
//     unchanged, nothing is at the wrong desk, no document has two envelopes
//     (test/history); and what a recipient has confirmed is not given to it again
//     by a mesh that lost no disk and moved no agency, whatever indexes it lost;
//   - no sender is refused, the outboxes are empty, every Track says done, and the
//     audit of the mesh balances;
//   - no relay ends by itself, each starts again, and the spool of each is sound
//     by the check of `relayd fsck`.
//
// Two tests run plans. TestSeeds draws them by chance; TestEveryCommitPoint stops
// each relay of one small mesh at each call of its disk in turn. Both spread them
// over one process for each processor, of one thread each.
//
// A seed makes the same plan every time. It does not make the same run: the order
// of goroutines, of map iteration and of select, and the jitter of back-offs are
// the runtime's. So a finding may need its seed several times; the command that is
// printed with it does that, and prints what happened.
//
// Not here: disks that are full, fail or rot (test/faults/disk), real processes
// and power (test/scenario, test/power), Raft (test/directory), TLS, the power of
// the machines of agencies (relay/agency).
//
// # When something hangs
//
// The clock of a bubble moves on only while every goroutine waits for a channel,
// a timer, a WaitGroup or a Cond of the bubble. Somebody who waits for a mutex
// whose holder waits for time stops it for ever. A worker that makes no progress
// for five minutes prints all its stacks: look for sync.Mutex.Lock. Code that
// waits for a disk or a peer with a lock held uses a channel as the lock.
package simulation
