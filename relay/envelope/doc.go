// Package envelope is the vocabulary of what travels: the id and the canonical
// bytes of an envelope, the limits of the contract, what a relay takes into
// custody, and how a refusal crosses the wire.
//
// It promises:
//   - Two headers with the same values have the same canonical bytes and, from
//     the same sender and document id, the same ID, on every relay and in every
//     language that follows the contract (testdata/ids.json holds vectors).
//   - Check finds everything wrong with a header at once, names each field by
//     its path, and knows every field of the contract: a test fails when a field
//     is added without a limit.
//   - A Refusal is the same value on both sides of a gRPC call, and Temporary is
//     the only place that decides whether another try may succeed.
//   - A relay's report about one delivery has one id, however often it is
//     written, so repeats are dropped like those of any envelope.
//
// It does no I/O, keeps no clock, and does not ask the directory: whether an
// agency exists, may write to another, or whether an envelope has expired, is
// decided at ingress.
package envelope
