package box

import (
	"errors"
	"slices"
	"strings"
	"time"

	"allotment/api"
	"allotment/portal/web"
)

// Bounds of what the page of logs reads and shows.
const (
	logLines  = 500  // read where nothing is searched for
	logSearch = 5000 // read to search in
	logShown  = 500
)

// logsView is what the page of logs shows.
type logsView struct {
	Sources []web.Option // MODULE, or MODULE/SERVICE; box/SERVICE for those of the box itself
	Source  string
	Search  string
	Follow  bool
	Lines   []lineView // the newest first
	More    bool       // there are older ones
}

// lineView is a line with its time by the organisation's clocks.
type lineView struct {
	api.Line
	At string
}

// ownServices are the box's own that have a log.
var ownServices = []string{"supervisor", "gateway", "portal", "updater", "resolver"}

func (p *Pages) logs(r *web.Request) error {
	modules, err := r.Box.Modules(ctx(r))
	if err != nil {
		return problem(err)
	}
	v := logsView{Source: r.Query("source"), Search: r.Query("search"), Follow: r.Query("follow") == "yes"}
	v.Sources = sourcesOf(r, modules)
	if !slices.ContainsFunc(v.Sources, func(o web.Option) bool { return o.Value == v.Source }) {
		v.Source = v.Sources[0].Value
	}
	for i := range v.Sources {
		v.Sources[i].Chosen = v.Sources[i].Value == v.Source
	}
	module, service, _ := strings.Cut(v.Source, "/")
	q := api.LogQuery{Module: module, Service: service, Lines: logLines}
	if module == "box" {
		q.Module = ""
	}
	if v.Search != "" {
		q.Lines = logSearch
	}
	want := strings.ToLower(v.Search)
	zone, err := time.LoadLocation(r.Config().TimeZone)
	if err != nil {
		zone = time.UTC
	}
	for line, err := range r.Box.Logs(ctx(r), q) {
		if errors.Is(err, &api.Error{Code: api.NotFound}) {
			break // a daemon that this box does not run
		}
		if err != nil {
			return problem(err)
		}
		if !strings.Contains(strings.ToLower(line.Text), want) {
			continue
		}
		if v.Lines = append(v.Lines, lineView{line, line.Time.In(zone).Format(time.DateTime)}); len(v.Lines) > logShown {
			v.Lines, v.More = v.Lines[1:], true
		}
	}
	slices.Reverse(v.Lines)
	if v.Follow {
		r.W.Header().Set("Refresh", "5")
	}
	return r.Render("logs", v)
}

func sourcesOf(r *web.Request, modules []api.Module) []web.Option {
	all := []web.Option{{Value: "box/", Label: r.T("box.logs.box")}}
	for _, s := range ownServices {
		all = append(all, web.Option{Value: "box/" + s, Label: r.T("box.logs.box") + ": " + r.Or("box.logs."+s, s)})
	}
	for _, m := range modules {
		title := r.ModuleTitle(m.Name, m.Title)
		all = append(all, web.Option{Value: m.Name + "/", Label: title})
		for _, s := range m.Services {
			if len(m.Services) > 1 {
				all = append(all, web.Option{Value: m.Name + "/" + s.Name, Label: title + ": " + s.Name})
			}
		}
	}
	return all
}
