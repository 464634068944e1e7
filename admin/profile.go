package admin

import (
	"net/http"
	"net/http/pprof"
	"strconv"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
)

// profileSecondsMax is the longest profile or trace that may be asked for.
const profileSecondsMax = 120

// newProfilePage serves net/http/pprof's handlers.
func (a *Server) newProfilePage() fasthttp.RequestHandler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return fasthttpadaptor.NewFastHTTPHandler(a.oneProfile(mux))
}

// oneProfile bounds how long a profile takes, and lets those that take time come one at a time.
func (a *Server) oneProfile(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seconds := r.FormValue("seconds")
		if seconds == "" && r.URL.Path != "/debug/pprof/profile" && r.URL.Path != "/debug/pprof/trace" {
			next.ServeHTTP(w, r)
			return
		}
		if n, err := strconv.ParseFloat(seconds, 64); seconds != "" && (err != nil || !(n <= profileSecondsMax)) { // NaN is not less
			http.Error(w, "seconds is a number of at most "+strconv.Itoa(profileSecondsMax), http.StatusBadRequest)
			return
		}
		if !a.profiling.CompareAndSwap(false, true) {
			http.Error(w, "another profile is being taken; try again when it is done", http.StatusConflict)
			return
		}
		defer a.profiling.Store(false)
		next.ServeHTTP(w, r)
	})
}
