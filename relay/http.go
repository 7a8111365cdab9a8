package relay

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// httpTimeout bounds one request on the HTTP port.
const httpTimeout = 30 * time.Second

// serveHTTP answers /healthz (the process is not beyond help), /readyz
// (envelopes are accepted here, or why not) and /metrics until ctx ends.
func (r *Relay) serveHTTP(ctx context.Context) error {
	listener := r.config.HTTPListener
	if listener == nil {
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", r.healthz)
	mux.HandleFunc("GET /readyz", r.readyz)
	if r.config.Metrics != nil {
		mux.Handle("GET /metrics", r.config.Metrics)
	}
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: httpTimeout, ReadTimeout: httpTimeout, WriteTimeout: httpTimeout,
		MaxHeaderBytes: 16 << 10,
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { stopped <- server.Close() })
	err := server.Serve(listener)
	if !stop() {
		return <-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (r *Relay) healthz(w http.ResponseWriter, _ *http.Request) {
	if phase, _ := r.state.get(); phase == failed {
		http.Error(w, "failed", http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ok\n"))
}

// readiness is what /readyz answers; the field names are stable.
type readiness struct {
	Relay   string   `json:"relay"`
	Version string   `json:"version,omitempty"`
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"`
}

func (r *Relay) readyz(w http.ResponseWriter, _ *http.Request) {
	answer := readiness{Relay: string(r.config.ID), Version: r.config.Version, Reasons: []string{}}
	answer.Reasons = append(answer.Reasons, r.unready(r.config.Directory.View())...)
	answer.Ready = len(answer.Reasons) == 0
	w.Header().Set("Content-Type", "application/json")
	if !answer.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(w).Encode(answer)
}
