package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/truclienthong/truc/cmd/internal/cli"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

func newCA(options *cli.Options) *cobra.Command {
	var dir string
	ca := &cobra.Command{
		Use:   "ca",
		Short: "The built-in authority: issue, sign, revoke",
		Long: `The built-in authority lives in a directory (--dir) on one machine, best one that
is not a relay. Every relay and connector gets its root.crt as "trust".

Only revoke needs a profile: it tells the relays. The others work on the directory
alone.`,
	}
	ca.PersistentFlags().StringVar(&dir, "dir", "ca", "directory of the authority")
	must(ca.MarkPersistentFlagDirname("dir"))
	ca.AddCommand(newCAInit(options, &dir), newCAIssue(options, &dir), newCASign(options, &dir),
		newCARevoke(options, &dir), newCAList(options, &dir))
	return ca
}

func newCAInit(options *cli.Options, dir *string) *cobra.Command {
	var domain string
	cmd := &cobra.Command{
		Use: "init", Short: "Make an authority", Args: cobra.NoArgs,
		Long: `Make an authority: its key (root.key), its certificate (root.crt) and the list of
what it issues. Keep a copy of the directory in a safe place.

Fields with -o json: trust_domain, root (file), not_after.`,
		Example: "  relayctl ca init --dir /secure/ca --trust-domain truc.gov.example",
		RunE: func(cmd *cobra.Command, _ []string) error {
			authority, err := pki.Create(*dir, domain)
			if err != nil {
				return err
			}
			result := struct {
				TrustDomain string `json:"trust_domain"`
				Root        string `json:"root"`
				NotAfter    string `json:"not_after"`
			}{domain, filepath.Join(*dir, "root.crt"), stamp(timestamppb.New(authority.Certificate().NotAfter))}
			return options.Output(cmd).Print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "authority of %s; give %s to everyone, and keep the rest of %s to yourself\n", domain, result.Root, *dir)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&domain, "trust-domain", "truc.local", "trust domain, a name like truc.gov.example")
	return cmd
}

const issuedFields = `Fields with -o json: serial, identity, certificate and key (files), not_after.`

// issued is the JSON of a certificate that was made.
type issued struct {
	Serial      string `json:"serial"`
	Identity    string `json:"identity"`
	Certificate string `json:"certificate"`
	Key         string `json:"key,omitempty"`
	NotAfter    string `json:"not_after"`
}

func newCAIssue(options *cli.Options, dir *string) *cobra.Command {
	var out string
	var hosts []string
	var validity time.Duration
	cmd := &cobra.Command{
		Use: "issue relay|agency|gateway|operator NAME", Short: "Make a key and its certificate", Args: cobra.ExactArgs(2),
		Long: `Make a key and its certificate. NAME is the relay's id, the agency's code, the
gateway's id, or the operator's name. For a relay better sign the request of
"relayd init", so that its key never travels.

A certificate is renewed by issuing it again and putting the new files in place of
the old: programs read them again by themselves.

` + issuedFields,
		ValidArgs: []string{"relay", "agency", "gateway", "operator"},
		Example:   "  relayctl ca issue agency H26.12.05 --out certificates",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := tls.ParseKind(args[0])
			if err != nil {
				return cli.Usage("%v", err)
			}
			authority, err := openAuthority(*dir)
			if err != nil {
				return err
			}
			certPEM, keyPEM, err := authority.Issue(pki.Request{Kind: kind, Name: args[1], Hosts: hosts, Validity: validity})
			if err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o755); err != nil {
				return err
			}
			certFile, keyFile := filepath.Join(out, args[1]+".crt"), filepath.Join(out, args[1]+".key")
			if err := pki.WriteFiles(certFile, certPEM, keyFile, keyPEM); err != nil {
				return err
			}
			return printIssued(cmd, options, certPEM, certFile, keyFile)
		},
	}
	cmd.Flags().StringVar(&out, "out", ".", "directory for NAME.crt and NAME.key")
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "host names and IP addresses of a relay")
	cmd.Flags().DurationVar(&validity, "validity", 0, "how long it is valid; without it a year")
	return cmd
}

func newCASign(options *cli.Options, dir *string) *cobra.Command {
	var out, kind, name string
	var validity time.Duration
	cmd := &cobra.Command{
		Use: "sign CSR", Short: "Sign a certificate request", Args: cobra.ExactArgs(1),
		Long: `Sign a certificate request, for example of "relayd init". The identity is that of
the request; look at it before you sign, or say with --expect-kind and
--expect-name what it has to be.

Fields with -o json: serial, identity, certificate (file), not_after.`,
		Example: "  relayctl ca sign relay.csr --expect-kind relay --expect-name bac --out relay.crt",
		RunE: func(cmd *cobra.Command, args []string) error {
			csr, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			expect := pki.Request{Name: name, Validity: validity}
			if kind != "" {
				if expect.Kind, err = tls.ParseKind(kind); err != nil {
					return cli.Usage("--expect-kind: %v", err)
				}
			}
			authority, err := openAuthority(*dir)
			if err != nil {
				return err
			}
			certPEM, err := authority.Sign(csr, expect)
			if err != nil {
				return err
			}
			if out == "" {
				out = args[0][:len(args[0])-len(filepath.Ext(args[0]))] + ".crt"
			}
			if err := pki.WriteFile(out, certPEM, 0o644); err != nil {
				return err
			}
			return printIssued(cmd, options, certPEM, out, "")
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "certificate file; without it beside the request")
	cmd.Flags().StringVar(&kind, "expect-kind", "", "refuse a request that is not for a relay, agency, gateway or operator")
	cmd.Flags().StringVar(&name, "expect-name", "", "refuse a request that is for another name")
	cmd.Flags().DurationVar(&validity, "validity", 0, "how long it is valid; without it a year")
	return cmd
}

func printIssued(cmd *cobra.Command, options *cli.Options, certPEM []byte, certFile, keyFile string) error {
	certificate, err := parseCertificate(certPEM)
	if err != nil {
		return err
	}
	identity, err := tls.CertificateIdentity(certificate)
	if err != nil {
		return err
	}
	result := issued{Serial: pki.FormatSerial(certificate.SerialNumber.Bytes()), Identity: identity.String(),
		Certificate: certFile, Key: keyFile, NotAfter: stamp(timestamppb.New(certificate.NotAfter))}
	return options.Output(cmd).Print(result, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s  %s  serial %s, valid until %s\n", certFile, result.Identity, result.Serial, result.NotAfter)
		return err
	})
}

func newCARevoke(options *cli.Options, dir *string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "revoke SERIAL", Short: "Take a certificate back, on every relay at once", Args: cobra.ExactArgs(1),
		Long: `Take a certificate back. The directory tells every relay, and streams that use the
certificate are cut. The authority's list notes it too. "relayctl ca list" has the
serials.

` + changedFields,
		RunE: func(cmd *cobra.Command, args []string) error {
			serial, err := pki.ParseSerial(args[0])
			if err != nil {
				return cli.Usage("%v", err)
			}
			authority, err := openAuthority(*dir)
			if err != nil {
				return err
			}
			if _, err := authority.Find(args[0]); err != nil {
				return err
			}
			issuer := authority.IssuerKeyHash()
			if err := changeDirectory(cmd, options, "revoked", pki.FormatSerial(serial), &directoryv1.Command{
				Change: &directoryv1.Command_RevokeCertificate{RevokeCertificate: &directoryv1.RevokeCertificate{
					Revocation: &directoryv1.Revocation{Serial: serial, IssuerKeyHash: issuer[:], Reason: reason}}}}); err != nil {
				return err
			}
			return authority.MarkRevoked(args[0], reason)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	return cmd
}

// certificateRow is the JSON of a certificate of the index.
type certificateRow struct {
	Serial    string `json:"serial"`
	Identity  string `json:"identity"`
	IssuedAt  string `json:"issued_at"`
	NotAfter  string `json:"not_after"`
	KeyHash   string `json:"key_hash"`
	RevokedAt string `json:"revoked_at"`
	Reason    string `json:"reason"`
}

func newCAList(options *cli.Options, dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the certificates the authority has made", Args: cobra.NoArgs,
		Long: `List the certificates the authority has made, in order of time.

Fields with -o json, one line per certificate: serial, identity, issued_at,
not_after, key_hash (SHA-256 of the public key), revoked_at ("": it was not), reason.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			authority, err := openAuthority(*dir)
			if err != nil {
				return err
			}
			all, err := authority.List()
			if err != nil {
				return err
			}
			var rows []certificateRow
			for _, c := range all {
				row := certificateRow{Serial: c.Serial, Identity: c.Identity, KeyHash: c.KeyHash, Reason: c.Reason,
					IssuedAt: stamp(timestamppb.New(c.IssuedAt)), NotAfter: stamp(timestamppb.New(c.NotAfter))}
				if !c.RevokedAt.IsZero() {
					row.RevokedAt = stamp(timestamppb.New(c.RevokedAt))
				}
				rows = append(rows, row)
			}
			return list(options.Output(cmd), "SERIAL\tIDENTITY\tNOT AFTER\tREVOKED", rows, func(c certificateRow) string {
				return fmt.Sprintf("%s\t%s\t%s\t%s", c.Serial, c.Identity, c.NotAfter, orDash(c.RevokedAt))
			})
		},
	}
}

// openAuthority says what to do where there is none.
func openAuthority(dir string) (*pki.Authority, error) {
	authority, err := pki.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no authority in %s (%w); name its directory with --dir, or make one with \"relayctl ca init\"", dir, err)
	}
	return authority, err
}

// parseCertificate reads the first certificate of a PEM file.
func parseCertificate(content []byte) (*x509.Certificate, error) {
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			return nil, errors.New("no certificate in PEM form")
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
		content = rest
	}
}
