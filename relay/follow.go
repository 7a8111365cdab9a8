package relay

import (
	"context"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// follow does what a change of the directory, or of the relay's own state,
// asks for, until ctx ends: connections whose certificates were taken back are
// cut, connections to peers that moved are let go, and health tells the truth.
// Streams of agencies that were suspended, or moved, end by themselves.
func (r *Relay) follow(ctx context.Context, p *parts) {
	for {
		changed, phased := r.config.Directory.Changed(), r.state.watch()
		view := r.config.Directory.View()
		r.config.Endpoint.CutRevoked()
		p.peers.follow(view)
		status := healthv1.HealthCheckResponse_SERVING
		if len(r.unready(view)) > 0 {
			status = healthv1.HealthCheckResponse_NOT_SERVING
		}
		p.health.SetServingStatus("", status)
		for service := range access {
			p.health.SetServingStatus(service, status)
		}
		select {
		case <-changed:
		case <-phased:
		case <-ctx.Done():
			return
		}
	}
}
