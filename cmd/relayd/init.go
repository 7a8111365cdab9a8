package main

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/relayd/node"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

func newInit(options *cli.Options) *cobra.Command {
	var dir, id, region, listen, advertise, http, trustDomain string
	cmd := &cobra.Command{
		Use: "init --dir DIR --id ID --region R --listen H:P", Short: "Make key, certificate request and configuration of a relay", Args: cobra.NoArgs,
		Long: `Make key, certificate request and configuration of a new relay in DIR. The key
stays there; nothing is overwritten.

Then:

  1. have the request signed by the authority of the mesh (trust domain as there):
       relayctl ca sign DIR/relay.csr --out DIR/relay.crt
  2. put the authority's root.crt into DIR
  3. for the first relays of a new mesh only: name all of them in relay.yaml, the
     same list on each, three, five or seven:
       voters:
         - {id: bac, address: "bac.example.vn:7400"}
         ...
     A relay that joins a mesh later has no such list.
  4. relayd run --config DIR/relay.yaml
  5. for a relay that joins later, from any machine with an operator's profile:
       relayctl raft add-nonvoter ID HOST:PORT     (or add-voter)

Fields with -o json: id, key, request, config (files written), certificate, trust
(files that have to be put there).`,
		Example: `  relayd init --dir /etc/truc --id bac --region "Bắc" --listen 0.0.0.0:7400 --advertise bac.example.vn:7400`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := routing.ParseRelayID(id); err != nil {
				return cli.Usage("--id: %v", err)
			}
			host, _, err := net.SplitHostPort(cmp.Or(advertise, listen))
			if err != nil {
				return cli.Usage("--listen and --advertise are host:port: %v", err)
			}
			if node.Unspecified(host) {
				return cli.Usage("nobody can dial %s: say with --advertise which host:port others dial", cmp.Or(advertise, listen))
			}
			config := node.Config{
				ID: id, Region: region, Listen: listen, Advertise: advertise, HTTP: http,
				Data: "data", Certificate: "relay.crt", Key: "relay.key", Trust: "root.crt",
			}
			key, request, file := filepath.Join(dir, "relay.key"), filepath.Join(dir, "relay.csr"), filepath.Join(dir, "relay.yaml")
			for _, name := range []string{key, request, file} {
				if _, err := os.Lstat(name); err == nil {
					return fmt.Errorf("%s is there already: relayd init does not overwrite a relay", name)
				}
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			identity := tls.Identity{TrustDomain: trustDomain, Kind: tls.KindRelay, Name: id}
			csrPEM, keyPEM, err := pki.NewRequest(identity, host)
			if err != nil {
				return err
			}
			if err := pki.WriteFile(key, keyPEM, 0o600); err != nil {
				return err
			}
			if err := pki.WriteFile(request, csrPEM, 0o644); err != nil {
				return err
			}
			if err := config.Write(file); err != nil {
				return err
			}
			result := struct {
				ID          string `json:"id"`
				Key         string `json:"key"`
				Request     string `json:"request"`
				Config      string `json:"config"`
				Certificate string `json:"certificate"`
				Trust       string `json:"trust"`
			}{id, key, request, file, filepath.Join(dir, "relay.crt"), filepath.Join(dir, "root.crt")}
			return options.Output(cmd).Print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, `key                  %s
certificate request  %s
configuration        %s

next:  relayctl ca sign %s --out %s
       put the root certificate of the mesh at %s
       new mesh: name its first relays as voters in %s
       relayd run --config %s
       joining a mesh: relayctl raft add-nonvoter %s %s
`, key, request, file, request, result.Certificate, result.Trust, file, file, id, cmp.Or(advertise, listen))
				return err
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "dir", "", "directory to write to")
	flags.StringVar(&id, "id", "", "id of the relay, 1 to 63 of a-z, 0-9 and -")
	flags.StringVar(&region, "region", "", "region it serves")
	flags.StringVar(&listen, "listen", "", "host:port to listen on")
	flags.StringVar(&advertise, "advertise", "", "host:port others dial; without it the same as --listen")
	flags.StringVar(&http, "http", "127.0.0.1:7480", "host:port of health and metrics; keep it on loopback")
	flags.StringVar(&trustDomain, "trust-domain", "truc.local", "trust domain of the mesh's authority")
	for _, name := range []string{"dir", "id", "region", "listen"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	return cmd
}
