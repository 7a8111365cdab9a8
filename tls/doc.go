// Package tls is the channel security of the mesh: who may connect, to whom,
// and for how long. It is the only place that builds a tls.Config.
//
// It promises:
//
//   - Every connection is TLS 1.3 with a certificate on both sides, and the
//     peer's Identity is verified before a byte of it reaches gRPC or Raft.
//   - Verification runs in VerifyConnection and sessions are never resumed, so
//     nothing gets in on the strength of an earlier handshake.
//   - An authority vouches for the names of its own trust domain only. Only
//     the authorities of the trust file say who is a relay or an operator;
//     authorities that the directory adds for other trust domains vouch for
//     agencies and gateways.
//   - An outside authority vouches for no name at all: its certificates count
//     only where the directory binds their public key to an agency or gateway.
//   - A connection lives no longer than the reasons it was let in for: a
//     revocation, a binding or an authority taken back, or the end of the
//     certificate's validity cuts it, whoever dialed it.
//   - New certificate, key and trust files are taken up without a restart; a
//     file that cannot be used leaves the old one in force and is reported.
//
// It does not decide what an identity may do: that is the business of whoever
// serves the call (FromContext). It does not look at host names either: a peer
// is its Identity, wherever it answers.
//
// Two identities with the same kind and name in two trust domains are two
// identities. Whoever compares names alone trusts all trust domains alike.
package tls
