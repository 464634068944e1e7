package watcher

import (
	"context"
	"log/slog"
	"slices"

	"github.com/sluiceproxy/sluice/route"
)

// located completes problems by where their objects stand.
func located(problems []route.Problem, s *State) []route.Problem {
	if s.Where == nil {
		return problems
	}
	problems = slices.Clone(problems)
	for i := range problems {
		if p := &problems[i]; p.File == "" {
			p.File = s.Where(p.Object)
		}
	}
	return problems
}

// announce logs the problems that have appeared and those that have gone since it was called last.
func (k *Controller) announce() {
	if k.current == nil {
		return
	}
	now, broken := map[route.Problem]bool{}, map[route.Problem]bool{}
	for _, p := range k.current.Problems {
		broken[p] = true
	}
	lines := 0
	problems := located(k.Problems(), k.current)
	if r, ok := k.Source.(Reporter); ok {
		r.Report(Outcome{State: k.current, Taken: k.taken, Problems: problems})
	}
	for _, p := range problems {
		if now[p] {
			continue
		}
		now[p] = true
		if !k.announced[p] {
			if lines++; lines <= problemsLoggedMax {
				level := slog.LevelWarn
				if broken[p] { // what it stands in is not followed any more
					level = slog.LevelError
				}
				k.Log.Log(context.Background(), level, "problem", problemAttributes(p)...)
			}
		}
	}
	for p := range k.announced {
		if !now[p] {
			if lines++; lines <= problemsLoggedMax {
				k.Log.Info("problem has gone", problemAttributes(p)...)
			}
		}
	}
	if more := lines - problemsLoggedMax; more > 0 {
		k.Log.Warn("more problems came or went than are logged at once: see /debug/problems of the admin page", "more", more)
	}
	k.announced = now
}

func problemAttributes(p route.Problem) []any {
	name := p.Object.Name
	if p.Object.Namespace != "" {
		name = p.Object.Namespace + "/" + name
	}
	list := []any{slog.String("object", p.Object.Kind+" "+name)}
	if p.Field != "" {
		list = append(list, slog.String("field", p.Field))
	}
	list = append(list, slog.String("reason", p.Reason))
	if p.File != "" {
		list = append(list, slog.String("file", p.File))
	}
	return list
}

// Check finds all problems of a state without serving it.
func Check(s *State, t Translator, env route.Env) []route.Problem {
	config, problems := t.Translate(&s.Objects)
	_, more := route.Compile(config, nil, env)
	return located(slices.Concat(s.Problems, problems, more), s)
}
